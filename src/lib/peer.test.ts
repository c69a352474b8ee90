import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPeer, networkOf, normalizeAddress, peerFrom, sourceOf, UNKNOWN_PEER } from './peer.ts'

for (const [text, expected] of [
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['::FFFF:C000:201', '192.0.2.1'],
  ['0:0:0:0:0:ffff:10.0.0.255', '10.0.0.255'],
  ['::ffff:0:1', '0.0.0.1'],
  ['2001:DB8:0:0::1', '2001:db8::1'],
  ['2001:db8:0:1:0:0:0:1', '2001:db8:0:1::1'],
  ['fe80::1%eth0', 'fe80::1'],
  ['::1', '::1'],
  ['::', '::'],
  ['::192.0.2.1', '::c000:201'], // "compatible", not mapped: another address
  ['', undefined],
  ['192.0.2', undefined],
  ['192.0.2.256', undefined],
  ['0300.0.2.1', undefined],
  ['example.org', undefined],
  ['[::1]', undefined],
  ['::1/64', undefined],
] as const) {
  test(`address "${text}" is ${expected}`, () => assert.equal(normalizeAddress(text), expected))
}

for (const [address, source, shown] of [
  ['192.0.2.1', '192.0.2.1', '192.0.2.1:9'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64', '[2001:db8:1:2:3:4:5:6]:9'],
  ['2001:db8:1:2::1', '2001:db8:1:2::/64', '[2001:db8:1:2::1]:9'],
  ['2001:db8::1', '2001:db8:0:0::/64', '[2001:db8::1]:9'],
  ['2001:db8::2:1', '2001:db8:0:0::/64', '[2001:db8::2:1]:9'],
  ['::1', '0:0:0:0::/64', '[::1]:9'],
  ['::ffff:192.0.2.1', '192.0.2.1', '192.0.2.1:9'],
] as const) {
  test(`${address} counts as ${source}`, () => {
    const peer = peerFrom(address, 9)
    assert.equal(sourceOf(peer), source)
    assert.equal(formatPeer(peer), shown)
  })
}

for (const [address, bits, network] of [
  ['192.0.2.77', 24, '192.0.2.0/24'],
  ['192.0.2.77', 26, '192.0.2.64/26'],
  ['192.0.2.77', 32, '192.0.2.77/32'],
  ['192.0.2.77', 0, '0.0.0.0/0'],
  ['2001:db8:1:2::1', 48, '2001:db8:1::/48'],
  ['2001:db8:1:2fe::1', 56, '2001:db8:1:200::/56'],
  ['2001:db8::1', 128, '2001:db8:0:0:0:0:0:1/128'],
  ['2001:db8::1', 0, '::/0'],
] as const) {
  test(`${address} is in the network ${network}`, () => {
    const prefixes = { ipv4Network: bits, ipv6Source: bits, ipv6Network: bits }
    assert.equal(networkOf({ address }, prefixes), network)
    assert.equal(sourceOf({ address }, prefixes), address.includes(':') ? network : address)
  })
}

test('who has no address', () => {
  assert.deepEqual(peerFrom(undefined, undefined), UNKNOWN_PEER)
  assert.equal(formatPeer(UNKNOWN_PEER), 'unknown')
  assert.equal(sourceOf(UNKNOWN_PEER), 'unknown')
})
