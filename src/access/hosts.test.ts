import assert from 'node:assert/strict'
import { test } from 'node:test'
import { normalizeAddress } from '../lib/peer.ts'
import { HostRules, whyNoNetwork } from './hosts.ts'

const CASES: readonly { name: string; allow?: string[]; deny?: string[]; in: string[]; out: string[] }[] = [
  { name: 'no rule', in: ['192.0.2.1', '2001:db8::1', ''], out: [] },
  {
    name: 'an allow list alone refuses the others',
    allow: ['192.0.2.0/24', '2001:db8::/32'],
    in: ['192.0.2.0', '192.0.2.255', '::ffff:192.0.2.9', '2001:db8:ffff::1'],
    out: ['192.0.3.0', '191.255.255.255', '2001:db9::1', '::1', ''],
  },
  {
    name: 'a deny list alone admits the others',
    deny: ['192.0.2.7', '2001:db8::/33'],
    in: ['192.0.2.6', '192.0.2.8', '2001:db8:8000::'],
    out: ['192.0.2.7', '::ffff:192.0.2.7', '2001:db8:7fff:ffff::1', ''],
  },
  {
    name: 'who is on both lists is in; who is on none, too',
    allow: ['192.0.2.7'],
    deny: ['192.0.2.0/24'],
    in: ['192.0.2.7', '198.51.100.1', '::1'],
    out: ['192.0.2.6', ''],
  },
  { name: 'IPv6 says nothing of IPv4', allow: ['::/0'], in: ['::1'], out: ['192.0.2.1', '::ffff:1.2.3.4'] },
  { name: 'nor IPv4 of IPv6', deny: ['0.0.0.0/0'], in: ['::1'], out: ['192.0.2.1', '::ffff:192.0.2.1'] },
  {
    name: 'everybody denied',
    deny: ['0.0.0.0/0', '::/0'],
    in: [],
    out: ['192.0.2.1', '::1', '::ffff:192.0.2.1', ''],
  },
  {
    name: 'networks of IPv4 written as IPv6',
    allow: ['::ffff:192.0.2.0/120', '::ffff:198.51.100.1'],
    in: ['192.0.2.200', '198.51.100.1'],
    out: ['192.0.3.1', '198.51.100.2', '::1'],
  },
  {
    name: 'bits of the host in a network do not count',
    allow: ['192.0.2.77/24', '2001:db8::1/64'],
    in: ['192.0.2.1', '2001:db8::2'],
    out: ['192.0.3.77'],
  },
  { name: 'spelled otherwise', deny: ['2001:DB8:0:0:0:0:0:1'], in: ['2001:db8::2'], out: ['2001:db8::1'] },
]
for (const { name, allow = [], deny = [], in: admitted, out } of CASES) {
  test(`hosts: ${name}`, () => {
    const rules = new HostRules({ allow, deny })
    const judge = (text: string) => rules.admits(text === '' ? undefined : normalizeAddress(text))
    for (const text of admitted) assert.equal(judge(text), true, `${text || 'no address'} must be admitted`)
    for (const text of out) assert.equal(judge(text), false, `${text || 'no address'} must be refused`)
  })
}

test('deny rules that fail open: names are refused where the rules are read', () => {
  for (const name of [
    'evil.example.org',
    'localhost',
    '*.example.org',
    'ALL',
    '',
    '@netgroup',
    '192.0.2.*',
  ]) {
    assert.match(whyNoNetwork(name) ?? '', /no address or network.*names are not taken/, name)
  }
})

test('what is a network and what only looks like one', () => {
  for (const good of ['192.0.2.1', '192.0.2.0/24', '0.0.0.0/0', '::/0', '2001:db8::/128', '::ffff:1.2.3.4']) {
    assert.equal(whyNoNetwork(good), undefined, good)
  }
  for (const bad of [
    ...['192.0.2.0/33', '192.0.2.0/', '192.0.2.0/-1', '192.0.2.0/24/24', '::/129', '::/x', '::1/0x10'],
    ...[
      '192.0.2.0/255.255.255.0',
      '192.0.2',
      'fe80::1%eth0',
      ' 192.0.2.1',
      '192.0.2.1 192.0.2.2',
      '192.0.2.1,::1',
    ],
  ]) {
    assert.ok(whyNoNetwork(bad), bad)
  }
})
