/** This program's own version, as package.json has it. */
export const release = '0.1.0';
