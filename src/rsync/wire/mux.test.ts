import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { PeerError } from '../../errors.ts'
import { decodeFrameHeader, FRAME_MAX, TAG, writeFrameHeader } from './mux.ts'

const CASES = [
  { name: '5 bytes of data', tag: TAG.data, length: 5, hex: '05000007' },
  { name: 'a keep-alive', tag: TAG.data, length: 0, hex: '00000007' },
  { name: 'the longest frame', tag: TAG.data, length: FRAME_MAX, hex: 'ffffff07' },
  { name: 'a text for stderr', tag: TAG.errorXfer, length: 0x1234, hex: '34120008' },
  { name: 'MSG_INFO', tag: TAG.info, length: 1, hex: '01000009' },
  { name: 'MSG_ERROR', tag: TAG.error, length: 1, hex: '0100000a' },
  { name: 'MSG_WARNING', tag: TAG.warning, length: 1, hex: '0100000b' },
  { name: 'MSG_IO_ERROR', tag: TAG.ioError, length: 4, hex: '0400001d' },
  { name: 'MSG_IO_TIMEOUT', tag: TAG.ioTimeout, length: 4, hex: '04000028' },
  { name: 'MSG_NOOP', tag: TAG.noop, length: 0, hex: '00000031' },
  { name: 'MSG_ERROR_EXIT', tag: TAG.errorExit, length: 4, hex: '0400005d' },
  { name: 'MSG_SUCCESS', tag: TAG.success, length: 4, hex: '0400006b' },
  { name: 'MSG_DELETED', tag: TAG.deleted, length: 4, hex: '0400006c' },
  { name: 'MSG_NO_SEND', tag: TAG.noSend, length: 4, hex: '0400006d' },
  { name: 'the highest tag there can be', tag: 248, length: 0, hex: '000000ff' },
]
for (const { name, tag, length, hex } of CASES) {
  test(`frame header: ${name}`, () => {
    const wire = fromHex(hex)
    const out = Buffer.alloc(6)
    writeFrameHeader(out, 1, tag, length)
    assert.equal(toHex(out), `00${hex}00`)
    assert.deepEqual(decodeFrameHeader(wire), { value: { tag, length }, size: 4 })
    assert.deepEqual(decodeFrameHeader(fromHex(`${hex}ff`)), { value: { tag, length }, size: 4 })
    for (let n = 0; n < 4; n++) assert.equal(decodeFrameHeader(wire.subarray(0, n)), undefined)
  })
}

for (const hex of ['00000000', '05000006', 'ffffff00']) {
  test(`frame header: ${hex} has a tag below 0`, () => {
    assert.throws(() => decodeFrameHeader(fromHex(hex)), PeerError)
  })
}
