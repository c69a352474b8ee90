import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex } from '../../test/support/hex.ts'
import { fc } from '../../test/support/property.ts'
import { PeerError } from '../errors.ts'
import { normalizeAddress } from '../lib/peer.ts'
import { decodeProxyHeader, looksLikeProxyHeader, type Proxied } from './proxy-header.ts'

const SIGNATURE = '0d0a0d0a 000d0a51 5549540a'
const line = (text: string): Buffer => Buffer.from(`${text}\r\n`, 'latin1')
const v2 = (hex: string): Buffer => Buffer.from(fromHex(`${SIGNATURE} ${hex}`))
const client = (address: string, port: number): Proxied => ({ type: 'client', address, port })
const TCP4 = 'c0000201 c6336401 9c40 0369'
const TCP6 = `20010db8 00000000 00000000 00000001 ${'00'.repeat(15)}01 9c40 0369`
/** An ALPN, an empty one and one of a kind that nobody knows. */
const TLVS = '01 0003 616263 04 0000 e7 0001 ff'

const GOOD: { name: string; bytes: Buffer; value: Proxied }[] = [
  {
    name: 'v1 TCP4',
    bytes: line('PROXY TCP4 192.0.2.1 198.51.100.1 40000 873'),
    value: client('192.0.2.1', 40_000),
  },
  { name: 'v1 TCP6', bytes: line('PROXY TCP6 2001:db8::1 ::1 0 65535'), value: client('2001:db8::1', 0) },
  {
    name: 'v1 TCP6, as long as it may be',
    bytes: line(`PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535`),
    value: client(`${'ffff:'.repeat(7)}ffff`, 65_535),
  },
  { name: 'v1 UNKNOWN', bytes: line('PROXY UNKNOWN'), value: { type: 'unknown' } },
  {
    name: 'v1 UNKNOWN with addresses, which say nothing',
    bytes: line('PROXY UNKNOWN ffff::1 ffff::2 1 2'),
    value: { type: 'unknown' },
  },
  { name: 'v2 TCP4', bytes: v2(`21 11 000c ${TCP4}`), value: client('192.0.2.1', 40_000) },
  { name: 'v2 TCP6', bytes: v2(`21 21 0024 ${TCP6}`), value: client('2001:db8:0:0:0:0:0:1', 40_000) },
  { name: 'v2 TCP4 with TLVs', bytes: v2(`21 11 0019 ${TCP4} ${TLVS}`), value: client('192.0.2.1', 40_000) },
  { name: 'v2 of a unix socket', bytes: v2(`21 31 00d8 ${'00'.repeat(216)}`), value: { type: 'unknown' } },
  { name: 'v2 UNSPEC', bytes: v2('21 00 0000'), value: { type: 'unknown' } },
  { name: 'v2 UNSPEC with TLVs', bytes: v2(`21 00 000d ${TLVS}`), value: { type: 'unknown' } },
  { name: 'v2 LOCAL', bytes: v2('20 00 0000'), value: { type: 'proxy' } },
  { name: 'v2 LOCAL with anything', bytes: v2('20 ff 0003 010203'), value: { type: 'proxy' } },
]

for (const { name, bytes, value } of GOOD) {
  test(`${name}: whole, cut anywhere, and with bytes behind it`, () => {
    assert.deepEqual(decodeProxyHeader(bytes), { value, size: bytes.length })
    for (let n = 0; n < bytes.length; n++) {
      assert.equal(decodeProxyHeader(bytes.subarray(0, n)), undefined, `cut at ${n}`)
      assert.equal(looksLikeProxyHeader(bytes.subarray(0, n)), n > 0)
    }
    const more = Buffer.concat([bytes, Buffer.from('@RSYNCD: 31.0\n')])
    assert.deepEqual(decodeProxyHeader(more), { value, size: bytes.length })
  })
}

const BAD: { name: string; bytes: Buffer; says: RegExp }[] = [
  { name: 'rsync itself', bytes: Buffer.from('@RSYNCD: 31.0\n'), says: /there is none/ },
  { name: 'HTTP', bytes: Buffer.from('POST / HTTP/1.1\r\n'), says: /there is none/ },
  { name: 'one wrong byte of a signature', bytes: fromHexBuffer('0d0a0d0b'), says: /there is none/ },
  { name: 'v1 without an end', bytes: Buffer.from(`PROXY TCP4 ${'1'.repeat(96)}`), says: /longer than 107/ },
  {
    name: 'v1 with an end one byte late',
    bytes: line(`PROXY UNKNOWN ${'x'.repeat(92)}`),
    says: /longer than 107/,
  },
  { name: 'v1 with a port too high', bytes: line('PROXY TCP4 192.0.2.1 192.0.2.2 65536 1'), says: /no line/ },
  { name: 'v1 with a port in octal', bytes: line('PROXY TCP4 192.0.2.1 192.0.2.2 010 1'), says: /no line/ },
  {
    name: 'v1 with an address in octal',
    bytes: line('PROXY TCP4 192.0.02.1 192.0.2.2 1 1'),
    says: /no line/,
  },
  { name: 'v1 with the other family', bytes: line('PROXY TCP4 ::1 ::1 1 1'), says: /no line/ },
  { name: 'v1 with a zone', bytes: line('PROXY TCP6 fe80::1%eth0 ::1 1 1'), says: /no line/ },
  { name: 'v1 with a port too few', bytes: line('PROXY TCP4 192.0.2.1 192.0.2.2 1'), says: /no line/ },
  { name: 'v1 with two blanks', bytes: line('PROXY TCP4  192.0.2.1 192.0.2.2 1 1'), says: /no line/ },
  {
    name: 'v1 with a line feed alone',
    bytes: line('PROXY TCP4 192.0.2.1 192.0.2.2 1 1\nPROXY UNKNOWN'),
    says: /no line/,
  },
  { name: 'v1 in small letters', bytes: line('proxy UNKNOWN'), says: /there is none/ },
  { name: 'v1 UNKNOWNS', bytes: line('PROXY UNKNOWNS'), says: /no line/ },
  { name: 'v2 of version 1', bytes: v2(`11 11 000c ${TCP4}`), says: /version and command/ },
  { name: 'v2 with command 2', bytes: v2(`22 11 000c ${TCP4}`), says: /version and command/ },
  { name: 'v2 of datagrams', bytes: v2(`21 12 000c ${TCP4}`), says: /no stream/ },
  { name: 'v2 with addresses cut off', bytes: v2(`21 11 000b ${TCP4}`), says: /hold no addresses/ },
  { name: 'v2 of IPv6 with addresses of IPv4', bytes: v2(`21 21 000c ${TCP4}`), says: /hold no addresses/ },
  { name: 'v2 that is too long, before it is there', bytes: v2('21 11 ffff'), says: /more than 4096/ },
  { name: 'v2 LOCAL that is too long', bytes: v2('20 00 1001'), says: /more than 4096/ },
  { name: 'v2 with a TLV that goes too far', bytes: v2(`21 11 0010 ${TCP4} 01 0002 61`), says: /a TLV/ },
  { name: 'v2 with half a TLV', bytes: v2(`21 11 000e ${TCP4} 01 00`), says: /a TLV/ },
]

function fromHexBuffer(hex: string): Buffer {
  return Buffer.from(fromHex(hex))
}

for (const { name, bytes, says } of BAD) {
  test(`${name}: refused`, () => {
    assert.throws(
      () => decodeProxyHeader(bytes),
      (error) => error instanceof PeerError && says.test(error.message),
    )
  })
}

test('any header that a proxy may write says what was put into it', () => {
  const port = fc.nat(65_535)
  const tlv = fc.tuple(fc.nat(255), fc.uint8Array({ maxLength: 40 })).map(([type, value]) => {
    return Buffer.concat([Buffer.from([type, 0, value.length]), value])
  })
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.ipV4(),
      fc.ipV6(),
      port,
      port,
      fc.array(tlv, { maxLength: 5 }),
      (six, a, b, p, q, tlvs) => {
        const address = six ? b : a
        const v1 = line(`PROXY TCP${six ? 6 : 4} ${address} ${address} ${p} ${q}`)
        const ports = Buffer.alloc(4)
        ports.writeUInt16BE(p, 0)
        ports.writeUInt16BE(q, 2)
        const raw = six ? bytesOf6(b) : Buffer.from(a.split('.').map(Number))
        const body = Buffer.concat([raw, raw, ports, ...tlvs])
        const head = v2(`21 ${six ? '21' : '11'} ${body.length.toString(16).padStart(4, '0')}`)
        for (const bytes of [v1, Buffer.concat([head, body])]) {
          const got = decodeProxyHeader(bytes)!
          assert.equal(got.size, bytes.length)
          assert.equal(got.value.type, 'client')
          if (got.value.type !== 'client') return
          assert.equal(normalizeAddress(got.value.address), normalizeAddress(address))
          assert.equal(got.value.port, p)
        }
      },
    ),
  )
})

/** By way of the URL standard's own shortening, not by ours. */
function bytesOf6(address: string): Buffer {
  const [head = '', tail] = normalizeToGroups(address).split('::')
  const groups = head === '' ? [] : head.split(':')
  const behind = tail === undefined || tail === '' ? [] : tail.split(':')
  while (groups.length + behind.length < 8) groups.push('0')
  return Buffer.from([...groups, ...behind].map((group) => group.padStart(4, '0')).join(''), 'hex')
}

function normalizeToGroups(address: string): string {
  return new URL(`http://[${address}]/`).hostname.slice(1, -1)
}

test('any bytes give a header, a wait or a PeerError, and never take more than there are', () => {
  const start = fc.constantFrom(
    Buffer.from('PROXY '),
    Buffer.from('PROXY TCP4 '),
    v2(''),
    v2('21 11'),
    v2('21 21 00'),
  )
  fc.assert(
    fc.property(
      fc.oneof(start, fc.constant(Buffer.alloc(0))),
      fc.uint8Array({ maxLength: 300 }),
      (begin, rest) => {
        const bytes = Buffer.concat([begin, rest])
        try {
          const got = decodeProxyHeader(bytes)
          if (got) assert.ok(got.size > 0 && got.size <= bytes.length)
          else assert.ok(bytes.length < 16 + 4096)
        } catch (error) {
          assert.ok(error instanceof PeerError, String(error))
        }
      },
    ),
    { numRuns: 500 },
  )
})
