import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { describe, test } from 'node:test'
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib'
import { fc } from '../../test/support/property.ts'
import { noise as noiseOf, randomOf } from '../../test/support/random.ts'
import { deflate } from './deflate.ts'

const WINDOW = 32 * 1024
const MARKER = Buffer.from('0000ffff', 'hex')
/** An empty stored block that begins with a byte. */
const FLUSH_SIZE = 5
/** Of a stored block. */
const MOST_STORED = 0xffff

/** As a client's decoder does it that has `history` in its window. */
function inflate(data: Uint8Array, history: Uint8Array = Buffer.alloc(0)): Buffer {
  const dictionary = history.subarray(Math.max(0, history.length - WINDOW))
  const options = { finishFlush: constants.Z_SYNC_FLUSH }
  return inflateRawSync(data, dictionary.length > 0 ? { ...options, dictionary } : options)
}

function zlibBest(piece: Uint8Array, history?: Uint8Array): Uint8Array {
  const options = { level: constants.Z_BEST_COMPRESSION, finishFlush: constants.Z_SYNC_FLUSH }
  return deflateRawSync(piece, history ? { ...options, dictionary: history } : options)
}

/** Deflates, and sees to it that all comes back, up to the flush, in hardly more bytes than there are. */
function checked(piece: Uint8Array, history?: Uint8Array): Uint8Array {
  const data = deflate(piece, history)
  assert.deepEqual(inflate(data, history), Buffer.from(piece))
  assert.deepEqual(Buffer.from(data.subarray(-MARKER.length)), MARKER)
  const segments = Math.ceil(piece.length / (256 * 1024))
  const most = piece.length + FLUSH_SIZE * (1 + segments + Math.floor(piece.length / MOST_STORED))
  assert.ok(data.length <= most, `${data.length} bytes for ${piece.length}`)
  return data
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const random = randomOf(1)
const noise = (size: number): Buffer => noiseOf(random, size)

describe('deflate: known bytes', () => {
  // biome-ignore format: a table
  const ROWS: readonly { name: string; piece: string; data: string }[] = [
    { name: 'nothing is an empty stored block', piece: '', data: '000000ffff' },
    { name: 'one byte, with the fixed codes', piece: 'a', data: '4a04000000ffff' },
    { name: 'a match that overlaps itself', piece: 'aaaaaaaaaa', data: '4a840300000000ffff' },
  ]
  for (const { name, piece, data } of ROWS) {
    test(name, () => assert.equal(hex(checked(Buffer.from(piece))), data))
  }
})

describe('deflate: what is hard', () => {
  /** As often as Fibonacci's numbers say: codes would grow longer than 15 bits, and there are no long matches. */
  function fibonacci(symbols: number): Buffer {
    const out: number[] = []
    for (let symbol = 0, a = 1, b = 1; symbol < symbols; symbol++, [a, b] = [b, a + b])
      for (let i = 0; i < a; i++) out.push(symbol)
    for (let at = out.length - 1; at > 0; at--) {
      const other = random(at + 1)
      ;[out[at], out[other]] = [out[other]!, out[at]!]
    }
    return Buffer.from(out)
  }
  const quarter = 256 * 1024
  const period = (size: number): Buffer => Buffer.alloc(quarter, noise(size))
  const sparse = Buffer.alloc(quarter)
  for (let at = 100; at < sparse.length; at += 200 + (at % 50)) sparse[at] = 1
  const rare = Buffer.alloc(quarter, 'a')
  for (let at = 0; at < rare.length; at += 257) rare[at] = 98
  const pieces: Record<string, Uint8Array> = {
    'each byte value once': Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
    'equal bytes': Buffer.alloc(700_000, 'x'),
    'equal bytes, one less than a match is long at most': Buffer.alloc(258, 'x'),
    'equal bytes, as long as a byte and the longest match': Buffer.alloc(259, 'x'),
    'what does not compress': noise(600_000),
    'what hardly compresses': noise(100_000).map((byte) => byte % 250),
    'stored blocks of the most bytes': noise(MOST_STORED),
    'stored blocks of one byte more': noise(MOST_STORED + 1),
    'two symbols': noise(50_000).map((byte) => byte & 1),
    'codes of 15 bits': fibonacci(24),
    'zeros with a byte here and there': sparse,
    'matches of 256 bytes': rare,
    'a period of 257 bytes': period(257),
    'a period of a window': period(WINDOW),
    'a period of more than a window': period(WINDOW + 1),
    'one kind of bytes behind the other': Buffer.concat([
      Buffer.from('words and more words, '.repeat(2000)),
      noise(40_000),
      Buffer.alloc(40_000),
      noise(40_000).map((byte) => byte % 10),
    ]),
    'one byte more than a segment': Buffer.concat([noise(1000), Buffer.alloc(288 * 1024 - 999)]),
  }
  for (const [name, piece] of Object.entries(pieces)) {
    test(name, () => {
      checked(piece)
      checked(piece, noise(1000))
    })
  }

  test('where nothing repeats there are two distance codes all the same, which old decoders want', () => {
    // Eight symbols, of which no three follow each other twice: at each place the greatest that is new.
    const bytes = [0, 0]
    const had = new Set<string>()
    for (let next = 7; next >= 0; ) {
      const three = [...bytes.slice(-2), next].join()
      if (had.has(three)) {
        next--
        continue
      }
      had.add(three)
      bytes.push(next)
      next = 7
    }
    assert.equal(bytes.length, 8 ** 3 + 2)
    const data = checked(Uint8Array.from(bytes))
    assert.equal(data[0]! & 0b111, 0b100, 'a block with codes of its own')
    assert.equal((data[1]! & 0b11111) + 1, 2)
  })

  test('each kind of bytes has blocks of its own', () => {
    const halves = [noise(65_536).map((byte) => byte & 3), noise(65_536).map((byte) => 128 + (byte & 3))]
    const apart = checked(halves[0]!).length + checked(halves[1]!).length
    const together = checked(Buffer.concat(halves)).length
    assert.ok(together < apart + 20, `${together} bytes, and ${apart}`)
  })

  test('what does not compress is stored between what does', () => {
    const words = Buffer.from('words and more words, '.repeat(2000))
    const bytes = noise(40_000)
    assert.ok(checked(Buffer.concat([words, bytes, words])).length < bytes.length + 1500)
  })
})

describe('deflate: history', () => {
  const words = noise(1000)

  test('is referred to as far as a distance reaches, and no farther', () => {
    for (const [distance, found] of [
      [WINDOW - 1, true],
      [WINDOW, true],
      [WINDOW + 1, false],
    ] as const) {
      // All of it behind the distance in question: a match that begins later would reach the rest.
      const filler = noise(distance - words.length)
      const size = checked(words, Buffer.concat([words, filler])).length
      assert.equal(size < 30, found, `distance ${distance}: ${size} bytes`)
      const inPiece = checked(Buffer.concat([words, filler, words])).length
      assert.equal(inPiece < distance + 200, found, `distance ${distance} in a piece: ${inPiece} bytes`)
    }
  })

  test('more than a window of it is as good as a window', () => {
    const history = noise(2 * WINDOW)
    const piece = history.subarray(-5000)
    assert.deepEqual(deflate(piece, history), deflate(piece, history.subarray(-WINDOW)))
  })

  test('is not remembered', () => {
    const alone = deflate(words)
    deflate(words, words)
    deflate(Buffer.concat([words, words]))
    assert.deepEqual(deflate(words), alone)
    // Words were here, where they come later this time: nothing refers ahead.
    deflate(Buffer.concat([noise(4000), words]))
    checked(Buffer.concat([words, noise(3000), words]))
  })

  test('pieces of a stream follow each other without an end', () => {
    const whole = readFileSync(new URL('../../docs/rsync-protocol.md', import.meta.url))
    const parts: Uint8Array[] = []
    for (let at = 0; at < whole.length; at += 10_000) {
      parts.push(deflate(whole.subarray(at, at + 10_000), whole.subarray(Math.max(0, at - WINDOW), at)))
    }
    const all = Buffer.concat(parts)
    assert.deepEqual(inflate(all), whole)
    assert.throws(() => inflateRawSync(all), /unexpected end/, 'a final block would end the stream')
  })
})

test('deflate: any bytes come back, whatever history there is', () => {
  const words = fc
    .array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 60 }), fc.integer({ min: 1, max: 400 })), {
      maxLength: 20,
    })
    .map((runs) => Buffer.concat(runs.flatMap(([word, times]) => Array<Uint8Array>(times).fill(word))))
  const fewSymbols = fc
    .array(fc.integer({ min: 0, max: 5 }), { maxLength: 5000 })
    .map((values) => Uint8Array.from(values))
  const bytes = fc.oneof(fc.uint8Array({ maxLength: 5000 }), fewSymbols, words)
  fc.assert(
    fc.property(bytes, bytes, fc.double({ min: 0, max: 1, noNaN: true }), (one, other, share) => {
      const all = Buffer.concat([one, other, one])
      const cut = Math.floor(all.length * share)
      checked(all.subarray(cut), all.subarray(0, cut))
    }),
    { numRuns: 150 },
  )
})

describe('deflate: takes fewer bytes than zlib at its best', () => {
  function program(): Buffer {
    const bytes = Buffer.alloc(2 ** 20)
    const file = openSync(process.execPath, 'r')
    try {
      readSync(file, bytes, 0, bytes.length, 0)
    } finally {
      closeSync(file)
    }
    return bytes
  }

  const files: Record<string, () => Buffer> = {
    'of a text': () => readFileSync(new URL('../../docs/rsync-protocol.md', import.meta.url)),
    'of a program': program,
  }
  for (const [name, read] of Object.entries(files)) {
    test(`for all ${name}, at least 3 in a hundred`, () => {
      const bytes = read()
      const [own, zlib] = [checked(bytes).length, zlibBest(bytes).length]
      assert.ok(own < zlib * 0.97, `${own} bytes, zlib takes ${zlib}`)
    })

    test(`for a piece ${name} with history`, () => {
      const bytes = read()
      const [history, piece] = [bytes.subarray(0, WINDOW), bytes.subarray(WINDOW, WINDOW + 100_000)]
      const [own, zlib] = [checked(piece, history).length, zlibBest(piece, history).length]
      assert.ok(own < zlib, `${own} bytes, zlib takes ${zlib}`)
    })
  }
})
