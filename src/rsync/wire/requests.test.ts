import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { fc } from '../../../test/support/property.ts'
import { PeerError } from '../../errors.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { ascii } from '../../lib/bytes.ts'
import { NdxEncoder } from './ndx.ts'
import { encodeEcho, type Request, RequestDecoder, type RequestRules } from './requests.ts'

const RULES: RequestRules = { protocol: 32, count: 10, xattrs: 'none', dryRun: false }
const HEAD = { count: 2, blockLength: 700, strongLength: 2, remainder: 5 }
const HEAD_HEX = '02000000 bc020000 02000000 05000000'

function item(changes: object): Request {
  return {
    type: 'item',
    ndx: 0,
    iflags: 0,
    basisType: undefined,
    xname: undefined,
    asksXattrs: false,
    wantsData: false,
    head: undefined,
    ...changes,
  } as Request
}

const CASES: { name: string; rules?: Partial<RequestRules>; hex: string; value: Request }[] = [
  { name: 'the mark between phases', hex: '00', value: { type: 'done' } },
  { name: 'deletions', hex: 'ff 02', value: { type: 'deletions' } },
  {
    name: 'a keep-alive of protocol 29',
    rules: { protocol: 29 },
    hex: '0a000000 0020',
    value: { type: 'keep-alive' },
  },
  { name: 'an entry without data', hex: '01 0008 80', value: item({ iflags: 0x0800, basisType: 0x80 }) },
  {
    name: 'data',
    hex: `01 0080 ${HEAD_HEX}`,
    value: item({ iflags: 0x8000, wantsData: true, head: HEAD }),
  },
  {
    name: 'data, from another basis',
    hex: `01 0098 83 03 61 2f 62 ${HEAD_HEX}`,
    value: item({ iflags: 0x9800, basisType: 0x83, xname: ascii('a/b'), wantsData: true, head: HEAD }),
  },
  {
    name: 'data below protocol 29, where no more is said',
    rules: { protocol: 28 },
    hex: `00000000 ${HEAD_HEX}`,
    value: item({ iflags: 0x8000, wantsData: true, head: HEAD }),
  },
  {
    name: 'data that a dry run does not want',
    rules: { dryRun: true, xattrs: 'all' },
    hex: '01 0081',
    value: item({ iflags: 0x8100 }),
  },
  {
    name: 'attributes, whose numbers come before the head',
    rules: { xattrs: 'all' },
    hex: '01 0081',
    value: item({ iflags: 0x8100, asksXattrs: true, wantsData: true }),
  },
  {
    name: 'attributes of what is linked to another entry',
    rules: { xattrs: 'not-of-links' },
    hex: '01 0051 01 61',
    value: item({ iflags: 0x5100, xname: ascii('a') }),
  },
  {
    name: 'attributes of what is linked to another entry, where they may be asked for',
    rules: { xattrs: 'all' },
    hex: '01 0051 01 61',
    value: item({ iflags: 0x5100, xname: ascii('a'), asksXattrs: true }),
  },
]

for (const { name, rules, hex, value } of CASES) {
  test(`request: ${name}`, () => {
    const all = { ...RULES, ...rules }
    const wire = fromHex(hex)
    const decoder = new RequestDecoder(all)
    for (let n = 0; n < wire.length; n++) assert.equal(decoder.decode(wire.subarray(0, n)), undefined)
    assert.deepEqual(decoder.decode(fromHex(`${hex} ff`)), { value, size: wire.length })
    if (value.type !== 'item') return
    const echo = new ByteWriter()
    encodeEcho(echo, new NdxEncoder(all.protocol), all.protocol, value)
    const silent = value.head ? 16 : 0
    assert.equal(toHex(echo.view()), toHex(wire.subarray(0, wire.length - silent)))
  })
}

for (const { name, rules, hex } of [
  { name: 'an entry beyond the list', hex: '0b 0080' },
  { name: 'a mark that nobody knows', hex: 'ff 04' },
  { name: 'deletions where there are none yet', rules: { protocol: 30 }, hex: 'ff 02' },
  { name: 'a keep-alive that wants something', rules: { protocol: 29 }, hex: '0a000000 0080' },
  { name: 'a keep-alive of another protocol', rules: { protocol: 30 }, hex: '0b 0020' },
  {
    name: 'sums that contradict each other',
    hex: `01 0080 ${HEAD_HEX.replace('05', 'ff')}`.replace('bc02', 'bc00'),
  },
]) {
  test(`request: ${name} is refused`, () => {
    const decoder = new RequestDecoder({ ...RULES, ...rules })
    assert.throws(() => decoder.decode(fromHex(hex)), PeerError)
  })
}

test('requests: any bytes give a request, a wait or an error, and where they are cut changes nothing', () => {
  const rules = fc.record({
    protocol: fc.constantFrom(28, 29, 30, 31, 32),
    count: fc.constantFrom(3, 1000),
    xattrs: fc.constantFrom('none', 'all', 'not-of-links'),
    dryRun: fc.boolean(),
  })
  const property = fc.property(rules, fc.uint8Array({ maxLength: 80 }), (given, bytes) => {
    const outcomes = [bytes.length, 1].map((step) => {
      const decoder = new RequestDecoder(given)
      const found: unknown[] = []
      try {
        for (let start = 0, end = 0; ; ) {
          const got = decoder.decode(bytes.subarray(start, end))
          if (got) {
            found.push(got)
            start += got.size
          } else if (end === bytes.length) {
            return found
          } else {
            end = Math.min(bytes.length, end + step)
          }
        }
      } catch (error) {
        assert.ok(error instanceof PeerError)
        return [...found, 'refused']
      }
    })
    assert.deepEqual(outcomes[1], outcomes[0])
  })
  fc.assert(property, { numRuns: 2000 })
})
