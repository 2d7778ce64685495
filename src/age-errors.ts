/** The file was not encrypted to any of the keys. */
export class WrongKey extends Error {}

/** It is not what age writes: cut off, changed, or something else. The message goes after "it". */
export class NotAgeFile extends Error {}
