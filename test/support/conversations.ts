/**
 * Conversations of a client, made by chance from the protocol's own grammar, and their damage: what is right
 * in most places gets far, so that what is wrong in one place is met everywhere.
 */
import { ascii, type ByteString } from '../../src/lib/bytes.ts'
import { encodeVarint, encodeVstring } from '../../src/rsync/wire/ints.ts'
import { NdxEncoder } from '../../src/rsync/wire/ndx.ts'
import { encodeSumHead } from '../../src/rsync/wire/sums.ts'
import {
  answerBy,
  atAnswers,
  bytesOf,
  type Ending,
  FULL,
  isAnswer,
  LOCKED,
  OPEN,
  rule,
  text,
  USER,
} from './hostile.ts'
import { noise, pick, type Random, some } from './random.ts'

const LETTERS = [...'rrrrrrdnlLkHogDUAXXcCRbztpWIvBs@']
/** Not --bwlimit: a client that wants to wait for hours may. */
const LONG = [
  '--list-only',
  '--numeric-ids',
  '--inplace',
  '--write-devices',
  '--append',
  '--append',
  '--compress-level=1',
  '--compress-level=0',
  '--compress-level=99999999999999',
  '--new-compress',
  '--old-compress',
  '--compress-choice=zstd',
  '--compress-choice=lz4',
  '--compress-choice=zlib',
  '--compress-choice=none',
  '--compress-choice=brotli',
  '--compress-threads=256',
  '--skip-compress=o/txt/[a-m]*',
  '--checksum-choice=md5',
  '--checksum-choice=md4',
  '--checksum-choice=xxh64,sha1',
  '--checksum-choice=auto,xxh3',
  '--checksum-choice=none',
  '--checksum-choice=crc',
  '--checksum-seed=1',
  '--checksum-seed=-1',
  '--checksum-seed=x',
  '--ignore-missing-args',
  '--delete-missing-args',
  '--copy-unsafe-links',
  '--no-implied-dirs',
  '--relative',
  '--no-relative',
  '--iconv=.',
  '--timeout=5',
  '--max-alloc=0',
  '--files-from=-',
  '--files-from=-',
  '--files-from=m/list',
  '--files-from=m/nothing',
  '--from0',
  '--remove-source-files',
  '--remove-sent-files',
  '--copy-devices',
  '--ignore-errors',
  '--backup-dir',
  '--specials',
  '--no-specials',
  '--an-option=of\\tomorrow',
]
const PATHS = [
  'm',
  'm/',
  'm/',
  'm/',
  'm/.',
  'm/a.txt',
  'm/sub',
  'm/sub/',
  'm/sub/./deep',
  'm/*',
  'm/*/*',
  'm/[a-z]*',
  'm/nothing',
  'm/../..',
  'm/link/',
  'm/link/up',
  'm/loop/loop/loop',
  'm/a.txt m/sub',
  'm/**',
  'm/\\',
  'm/[',
  `m/${'x'.repeat(300)}`,
]
const RULES = [
  '- *.o',
  '+ */',
  '- *',
  '-! *',
  ': .rules',
  ': /.rules',
  ':n .rules',
  ':w- .cvsignore',
  ':+ .cvsignore',
  ': .bad-rules',
  ':C',
  '-C',
  '!',
  'P x',
  'R x',
  'S a*',
  'H [[:alpha:]]*.txt',
  '-/ /sub',
  '- **/f',
  '- sub/***',
  '- /sub/de?p/',
  '+ [a-',
  '- [!a-c]z[]x]',
  '- a\\*',
  'exclude,s x',
  'dir-merge .rules',
  'merge x',
  'clear',
  '-x user.*',
]
const OLD_RULES = ['*.o', '+ a*', '- b', '- sub/**', '!']
const CHECKSUMS = ['xxh128 xxh3 xxh64 md5 md4 sha1', 'md5', 'md4 sha1', 'sha1', 'none', 'crc', '']
const CODECS = ['zstd lz4 zlibx zlib', 'zlib', 'zlibx', 'lz4', 'none']
const LISTED = ['a.txt', 'sub/', 'sub/deep/f', '../x', 'nothing', './link/f', 'link/./f', 'sub/./deep']
/** What stands where the module's name belongs, most often the name of one that there is. */
const MODULES = [
  ...Array.from({ length: 8 }, () => OPEN),
  ...Array.from({ length: 4 }, () => LOCKED),
  FULL,
  `${OPEN}\r`,
  'other',
  '',
  '#list',
  '#x',
]
/** What clients list in their greeting, and what they answer by then. */
const AUTH = [
  { digests: '', by: 'md5' },
  { digests: ' md5', by: 'md5' },
  { digests: ' sha512 md5 md4', by: 'sha512' },
  { digests: ' md4', by: 'md4' },
] as const

/** A piece of a conversation; framed: behind the setup, where from protocol 30 on it travels in frames. */
export interface Part {
  bytes: Buffer
  framed: boolean
}

export interface Talk {
  protocol: number
  parts: Part[]
}

export function conversation(random: Random): Talk {
  const protocol = pick(random, [27, 28, 29, 30, 31, 32, 32])
  const parts: Part[] = []
  const raw = (bytes: Buffer): void => void parts.push({ bytes, framed: false })
  const framed = (bytes: Buffer): void => void parts.push({ bytes, framed: true })

  const { digests, by } = pick(random, AUTH)
  raw(text(`@RSYNCD: ${protocol}${protocol >= 30 ? '.0' : ''}${digests}\n`))
  if (random(20) === 0) raw(text('#early_input=4\nabcd'))
  const name = pick(random, MODULES)
  raw(text(`${name}\n`))
  if (name === LOCKED || random(40) === 0) {
    const right = answerBy(protocol < 30 && digests === '' ? 'md4-legacy' : by)
    const wrong = [`${USER} XrY7u+Ae7tCTyyK7j1rNww`, `nobody ${right}`, USER, `${USER} ${answerBy('sha1')}`]
    raw(text(`${random(5) === 0 ? pick(random, wrong) : `${USER} ${right}`}\n`))
  }

  const info = random(4) === 0 ? some(random, [...'iLsfxCIvu'], 9).join('') : 'iLsfxCIvu'
  const letters = some(random, LETTERS, 12).join('')
  const long = some(random, LONG, 3)
  const secluded = letters.includes('s')
  const cluster = `-${letters}${protocol >= 30 ? `e.${info}` : ''}`
  const role = random(25) === 0 ? ['--server'] : ['--server', '--sender']
  const paths = [...some(random, PATHS, 2), pick(random, PATHS)]
  const rest = [...long, '.', ...(name === LOCKED ? paths.map((path) => path.replace(OPEN, name)) : paths)]
  const end = protocol < 30 ? '\n' : '\0'
  for (const arg of [...role, cluster, ...(secluded ? [] : rest)]) raw(text(arg + end))
  raw(text(end))
  if (secluded) raw(vector(['rsync', ...rest], '\0'))

  const negotiates = protocol >= 30 && info.includes('v')
  const chosen = (name: string): boolean => long.some((option) => option.startsWith(name))
  const vstring = (value: string): Buffer => bytesOf((out) => encodeVstring(out, value as ByteString))
  const autoChecksum = !chosen('--checksum-choice') || chosen('--checksum-choice=auto')
  if (negotiates && autoChecksum) raw(vstring(pick(random, CHECKSUMS)))
  const compresses = letters.includes('z') || chosen('--compress-level')
  const explicit = chosen('--compress-choice') || chosen('--new-compress') || chosen('--old-compress')
  if (negotiates && compresses && !explicit) raw(vstring(pick(random, CODECS)))

  for (const one of some(random, protocol < 29 ? OLD_RULES : RULES, 4)) framed(rule(one))
  framed(Buffer.alloc(4))
  if (chosen('--files-from=-')) {
    parts.push({ bytes: vector(some(random, LISTED, 5), '\0'), framed: protocol >= 31 })
  }

  const ndx = new NdxEncoder(protocol)
  const mark = (): void => framed(bytesOf((out) => ndx.encode(out, -1)))
  for (let i = random(8); i > 0; i--) framed(request(random, protocol, ndx, letters.includes('X')))
  for (let i = protocol >= 29 ? 3 : 2; i > 0; i--) {
    mark()
    if (random(6) === 0) framed(request(random, protocol, ndx, letters.includes('X')))
  }
  if (protocol >= 31 && random(3) === 0) {
    framed(
      bytesOf((out) => {
        ndx.encode(out, -3)
        for (const count of [1, 2, 3, 4, 500]) encodeVarint(out, count)
      }),
    )
  }
  mark()
  if (protocol >= 31) mark()
  return { protocol, parts }
}

const vector = (args: string[], end: string): Buffer => text([...args, ''].map((arg) => arg + end).join(''))

function request(random: Random, protocol: number, ndx: NdxEncoder, withXattrs: boolean): Buffer {
  return bytesOf((out) => {
    ndx.encode(out, random(26))
    let iflags = 0x8000
    if (protocol >= 29) {
      iflags = pick(random, [0x8000, 0x8000, 0xa000, 0x2000, 0, 0x8800, 0x9000, 0x5000, 0x8100])
      out.u16(iflags)
      if (iflags & 0x0800) out.u8(pick(random, [0x80, 0x81, 0x83, 0]))
      if (iflags & 0x1000) encodeVstring(out, ascii('other name'))
      if (iflags & 0x0100 && withXattrs) {
        for (const step of pick(random, [[0], [1, 0], [1, 1, 0], [3, 0]])) out.u8(step)
      }
    }
    if (!(iflags & 0x8000)) return
    const count = pick(random, [0, 0, 1, 2, 40])
    const blockLength = count === 0 ? 0 : pick(random, [700, 1000, 16, 131072])
    const strongLength = count === 0 ? 0 : pick(random, [2, 2, 8, 16, 20])
    const remainder = random(2) === 0 ? 0 : blockLength >> 1
    encodeSumHead(out, { count, blockLength, strongLength, remainder })
    for (let k = 0; k < count; k++) {
      out.i32(pick(random, [0, 0, random(2 ** 31)]))
      for (let i = 0; i < strongLength; i++) out.u8(random(256))
    }
  })
}

// ---------------------------------------------------------------------------------------------------
// Damage.

const NUMBERS = [0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 65_536, 2 ** 24, 0x07000000, 0x7fffffff, 700]
/** The longest that a part may grow to by being repeated. */
const MAX_OVERGROWN = 300_000

/** Damages a part: flipped, cut, doubled, lost, swapped, overgrown, foreign frames and lines between. */
export function mutate(random: Random, { parts }: Talk): void {
  const at = random(parts.length)
  const part = parts[at]!
  const set = (bytes: Buffer): void => {
    parts[at] = { ...part, bytes }
  }
  const between = (bytes: Buffer, framed: boolean): void => void parts.splice(at, 0, { bytes, framed })
  switch (random(12)) {
    case 0:
    case 1:
      set(damaged(random, part.bytes))
      break
    case 2:
      parts.splice(at, 0, part)
      break
    case 3:
      parts.splice(at, 1)
      break
    case 4: {
      const other = random(parts.length)
      parts[at] = parts[other]!
      parts[other] = part
      break
    }
    case 5:
      between(Buffer.concat([noise(random, random(60)), text('\n')]), false)
      break
    case 6:
      between(foreignFrame(random), false)
      break
    case 7:
      parts.splice(at + 1)
      break
    case 8:
      between(noise(random, random(300)), part.framed)
      break
    case 9: {
      const times = Math.min(
        pick(random, [10, 1000, 20_000]),
        Math.floor(MAX_OVERGROWN / (part.bytes.length + 1)),
      )
      set(Buffer.alloc(part.bytes.length * times, part.bytes))
      break
    }
    case 10: // a part of one phase in the middle of a part of another
      set(inserted(random, part.bytes, pick(random, parts).bytes))
      break
    case 11:
      parts[at] = { ...part, framed: !part.framed }
      break
  }
}

/** Bytes of a recorded conversation, damaged without knowing what they mean. */
export function havoc(random: Random, recorded: Buffer, other: Buffer): Buffer {
  let bytes = recorded
  for (let times = 1 + random(4); times > 0 && bytes.length > 0; times--) {
    const kind = random(6)
    if (kind < 3) bytes = damaged(random, bytes)
    else if (kind === 3) bytes = inserted(random, bytes, foreignFrame(random))
    else if (kind === 4) bytes = inserted(random, bytes, piece(random, bytes))
    else
      bytes = Buffer.concat([bytes.subarray(0, random(bytes.length)), other.subarray(random(other.length))])
  }
  return bytes
}

function damaged(random: Random, bytes: Buffer): Buffer {
  if (bytes.length === 0) return bytes
  const copy = Buffer.from(bytes)
  switch (random(4)) {
    case 0:
      copy[random(copy.length)]! ^= 1 << random(8)
      return copy
    case 1:
      return copy.subarray(0, random(copy.length))
    case 2:
      if (copy.length >= 4) copy.writeInt32LE(pick(random, NUMBERS), random(copy.length - 3))
      return copy
    default:
      copy[random(copy.length)] = random(256)
      return copy
  }
}

function inserted(random: Random, into: Buffer, what: Buffer): Buffer {
  const at = random(into.length + 1)
  return Buffer.concat([into.subarray(0, at), what, into.subarray(at)])
}

function piece(random: Random, bytes: Buffer): Buffer {
  const from = random(bytes.length)
  return bytes.subarray(from, from + 1 + random(100))
}

function foreignFrame(random: Random): Buffer {
  const head = Buffer.alloc(4)
  head.writeUInt32LE(((random(256) << 24) | pick(random, [0, 1, 4, 100, 0xffffff])) >>> 0)
  return Buffer.concat([head, noise(random, random(12))])
}

// ---------------------------------------------------------------------------------------------------
// How it is delivered.

/** What the client's socket sends: framed parts in frames of any size. */
export function wireOf(random: Random, { protocol, parts }: Talk): Buffer {
  const chunks: Buffer[] = []
  const most = pick(random, [1, 7, 50, 100_000])
  for (const { bytes, framed } of parts) {
    if (!framed || protocol < 30) {
      chunks.push(bytes)
      continue
    }
    for (let at = 0; at < bytes.length; ) {
      const size = Math.min(bytes.length - at, 1 + random(most))
      const head = Buffer.alloc(4)
      head.writeUInt32LE(0x07000000 | size)
      if (random(30) === 0) chunks.push(Buffer.from('00000007', 'hex'))
      chunks.push(head, bytes.subarray(at, at + size))
      at += size
    }
  }
  return Buffer.concat(chunks)
}

/** Whole, in pieces, or byte by byte where that does not take for ever. */
export function cut(random: Random, bytes: Buffer): Uint8Array[] {
  const most = pick(random, [65_536, 65_536, 1000, 60, 3, 1])
  const pieces: Uint8Array[] = []
  for (const part of atAnswers(bytes)) {
    if (isAnswer(part)) {
      pieces.push(part)
      continue
    }
    for (let at = 0; at < part.length; ) {
      const size = at > 3000 ? 65_536 : 1 + random(most)
      pieces.push(part.subarray(at, at + size))
      at += size
    }
  }
  return pieces
}

export function ending(random: Random, pieces: number): Ending {
  switch (random(12)) {
    case 0:
      return { type: 'vanishes', after: random(pieces + 1) }
    case 1:
      // All is said, and then it is silent: nothing but a wait is right, until it is gone.
      return { type: 'vanishes', after: pieces }
    case 2:
      return { type: 'never-reads' }
    default:
      return { type: 'ends' }
  }
}
