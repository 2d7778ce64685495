import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Reach, reachOf } from '../src/reach.ts';
import { parseEndpoint } from '../src/store/s3-address.ts';

const hosts: Readonly<Record<Reach, readonly string[]>> = {
  loopback: [
    '127.0.0.1',
    '127.255.0.9',
    '::1',
    '::ffff:127.0.0.1',
    'localhost',
    'LocalHost.',
    'db.localhost',
    '/run/pg',
  ],
  private: [
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.0.1',
    '::ffff:10.0.0.1',
    'fc00::1',
    'fdff::1',
    'minio',
  ],
  custom: ['100.64.0.1', '100.127.255.255', 'db.internal', 'NAS.local.'],
  'link-local': ['169.254.169.254', '::ffff:169.254.1.1', 'fe80::1', 'fe80::1%eth0', 'febf::1'],
  public: [
    '8.8.8.8',
    '172.32.0.1',
    '100.128.0.1',
    '2001:db8::1',
    'fec0::1',
    'db.example.com',
    '134744072',
    '0x8080808',
  ],
};

test('how far a host is, by its spelling', () => {
  for (const [reach, spellings] of Object.entries(hosts))
    for (const host of spellings) assert.equal(reachOf(host), reach, host);
});

test('backups go without TLS only where no custom has to hold', () => {
  for (const [reach, spellings] of Object.entries(hosts))
    for (const host of spellings.filter((each) => !/[/%]/.test(each))) {
      const name = host.includes(':') ? `[${host}]` : host;
      const allowed = 'endpoint' in parseEndpoint(`http://${name}:9000`, 'backups');
      assert.equal(allowed, reach === 'loopback' || reach === 'private', host);
    }
});
