import { BlockList, isIP } from 'node:net';

/**
 * Where packets to a host go: nowhere but this machine (`loopback`), into a network that is private by its standard
 * (`private`: RFC 1918, unique local IPv6, names without a dot) or by its users' custom only (`custom`: RFC 6598, which
 * carriers and overlay networks share, .internal and .local), to a neighbour on the same wire (`link-local`), or out
 * into the open (`public`).
 */
export type Reach = 'loopback' | 'private' | 'custom' | 'link-local' | 'public';

const networks: readonly (readonly [Reach, BlockList])[] = [
  ['loopback', blockOf(['127.0.0.0', 8], ['::1', 128])],
  ['link-local', blockOf(['169.254.0.0', 16], ['fe80::', 10])],
  ['private', blockOf(['10.0.0.0', 8], ['172.16.0.0', 12], ['192.168.0.0', 16], ['fc00::', 7])],
  ['custom', blockOf(['100.64.0.0', 10])],
];

function blockOf(...subnets: readonly (readonly [network: string, bits: number])[]): BlockList {
  const block = new BlockList();
  for (const [network, bits] of subnets) block.addSubnet(network, bits, isIP(network) === 4 ? 'ipv4' : 'ipv6');
  return block;
}

/** How far `host` (a name, an IP address without brackets, a socket directory) is, judged by its spelling alone. */
export function reachOf(host: string): Reach {
  if (host.startsWith('/')) return 'loopback';
  const family = isIP(host);
  if (family !== 0) {
    const address = host.replace(/%.*$/, '');
    const kind = family === 4 ? 'ipv4' : 'ipv6';
    return networks.find(([, block]) => block.check(address, kind))?.[0] ?? 'public';
  }
  const name = host.toLowerCase().replace(/\.$/, '');
  if (name === 'localhost' || name.endsWith('.localhost')) return 'loopback';
  if (name.endsWith('.internal') || name.endsWith('.local')) return 'custom';
  // getaddrinfo reads a bare number, 134744072 or 0x8080808, as an IPv4 address.
  const number = /^(\d+|0x[0-9a-f]+)$/.test(name);
  return name.includes('.') || number ? 'public' : 'private';
}

/**
 * What becomes of a request to `hostname`, as a URL spells it: `near` may go without TLS. A network that is private by
 * custom only counts as public; the cloud's metadata services, which go by names too, are link-local.
 */
export function placeOf(hostname: string): 'near' | 'public' | 'link-local' {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  if (/^metadata(?:\.|$)|\.metadata\./.test(host)) return 'link-local';
  const reach = reachOf(host);
  if (reach === 'link-local') return reach;
  return reach === 'loopback' || reach === 'private' ? 'near' : 'public';
}
