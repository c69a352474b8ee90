/** Attacks by frames: tags that a client may not send, floods that carry nothing, lengths that lie. */
import assert from 'node:assert/strict'
import { framed, NO_FILTERS, start, testAttacks } from '../support/hostile.ts'

const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex')
const GOODBYE = hex('0000000000')
/** A message of this tag around the filters, and then an ordinary end. */
const withMessage = (tag: number, payload: Buffer): Buffer[] => {
  const head = Buffer.alloc(4)
  head.writeUInt32LE((((7 + tag) << 24) | payload.length) >>> 0)
  return [start('-r', '.', 'm/'), head, payload, framed(NO_FILTERS), head, payload, framed(GOODBYE)]
}
/** The payloads of our own frames of in-band data: what a message must never end up in. */
const PAYLOAD = Buffer.from('\x1b[2Jsmuggled')

testAttacks([
  ...[1, 2, 3, 4, 5, 7, 8, 10, 22, 33, 42, 100, 101, 102, 200, 248].map((tag) => ({
    name: `a message of tag ${tag}`,
    says: () => withMessage(tag, PAYLOAD),
    outcome: 'done' as const,
    holds: ({ output }: { output: Buffer }) =>
      assert.ok(!output.includes('smuggled'), 'it must not be handed on'),
  })),
  {
    name: 'the client gives up',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS), hex('0000005d')],
    outcome: 'lost',
    error: /gave up/,
  },
  {
    name: 'the client gives up, with a code of 16 MB',
    says: () => [start('-r', '.', 'm/'), framed(NO_FILTERS), hex('ffffff5d')],
    outcome: 'lost',
    error: /gave up/,
  },
  {
    name: 'a message of 16 MB',
    says: () => [start('-r', '.', 'm/'), hex('ffffff09'), Buffer.alloc(1e6)],
    outcome: 'peer-error',
    error: /a message of 16777215 bytes/,
  },
  {
    name: 'a frame whose tag is below 0',
    says: () => [start('-r', '.', 'm/'), hex('04000000 00000000')],
    outcome: 'peer-error',
    error: /mux-header/,
  },
  {
    name: 'a frame that ends before its length',
    says: () => [start('-r', '.', 'm/'), hex('ffffff07 00000000')],
    outcome: 'lost',
  },
  {
    name: 'hundreds of thousands of empty frames',
    says: () => [
      start('-r', '.', 'm/'),
      ...Array.from({ length: 16 }, () => Buffer.alloc(65_536, hex('00000007'))),
    ],
    outcome: 'lost',
  },
  {
    name: 'hundreds of thousands of empty messages',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS),
      ...Array.from({ length: 16 }, () => Buffer.alloc(65_536, hex('00000031'))),
    ],
    outcome: 'lost',
  },
  {
    name: 'a million frames of one byte',
    says: () => [
      start('-r', '.', 'm/'),
      framed(NO_FILTERS),
      Buffer.alloc(
        5e6,
        hex(
          '01000007 ff 01000007 02 01000007 00 01000007 00 01000007 00 01000007 00 01000007 00 01000007 ff 01000007 fe 01000007 00 01000007 00',
        ),
      ),
    ],
    outcome: 'peer-error',
  },
  {
    name: 'keep-alives of protocol 29, a hundred thousand of them',
    says: ({ tree }) => {
      const keepAlive = Buffer.alloc(6)
      keepAlive.writeInt32LE(tree.count)
      keepAlive.writeUInt16LE(0x2000, 4)
      return [
        Buffer.from('@RSYNCD: 29\nm\n--server\n--sender\n-r\n.\nm/\n\n'),
        NO_FILTERS,
        Buffer.alloc(6e5, keepAlive),
      ]
    },
    outcome: 'lost',
  },
  {
    name: 'keep-alives of protocol 29 that ask for something',
    says: ({ tree }) => {
      const wrong = Buffer.alloc(6)
      wrong.writeInt32LE(tree.count)
      wrong.writeUInt16LE(0x8000, 4)
      return [Buffer.from('@RSYNCD: 29\nm\n--server\n--sender\n-r\n.\nm/\n\n'), NO_FILTERS, wrong]
    },
    outcome: 'peer-error',
    error: /ndx/,
  },
  {
    name: 'a list of checksums that is too long',
    says: () => [start('-re.v', '.', 'm/'), hex('ffff')],
    outcome: 'peer-error',
    error: /vstring/,
  },
  {
    name: 'checksums with control characters that nobody has',
    says: () => [start('-re.v', '.', 'm/'), hex('06'), Buffer.from('\x1b]0;x\x07')],
    outcome: 'refused',
    holds: ({ output }) => assert.ok(!output.includes('\x1b]0;')),
  },
])
