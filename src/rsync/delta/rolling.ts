/**
 * The inner loop of the search, as a WebAssembly module that is assembled here: one byte further, one look
 * into a filter, for every byte of the new file that no block covers. (The same loop in JavaScript takes
 * three times as long; `scanSlowly` in the tests says what it does.)
 *
 * The module has one memory: the two halves of the rolling sum, then the filter, then the window of the
 * new file, so that bytes are read from disk to where they are searched.
 */

/** [weak sum] Spreads its bits: the golden ratio times 2^32. */
const SPREAD = 0x9e3779b1
const STATE_BYTES = 16
const PAGE = 65_536
/** The instance that a thread keeps; for more, one is made and forgotten. */
const KEPT_BYTES = 8 * 2 ** 20

interface Code {
  memory: WebAssembly.Memory
  /** Sums the `length` bytes at `at` into the state. */
  sum(at: number, length: number): void
  /**
   * Moves the sum of `block` bytes forward from `at`, until the filter knows it or it stands at `stop`.
   * @returns where; -1 when it stands at `stop` and is unknown.
   */
  scan(at: number, stop: number, block: number, filter: number, shift: number): number
  /** Moves the sum of `block` bytes from `at` forward by one. */
  step(at: number, block: number): void
}

export class Rolling {
  /** Bytes of the new file. */
  readonly window: Uint8Array
  readonly #code: Code
  readonly #state: Uint16Array
  readonly #filter: Uint8Array
  readonly #shift: number
  readonly #windowAt: number

  private constructor(code: Code, windowBytes: number, filterBits: number) {
    const { buffer } = code.memory
    this.#code = code
    this.#shift = 32 - filterBits
    this.#state = new Uint16Array(buffer, 0, STATE_BYTES / 2)
    this.#filter = new Uint8Array(buffer, STATE_BYTES, 2 ** filterBits / 8)
    this.#windowAt = STATE_BYTES + 2 ** filterBits / 8
    this.window = new Uint8Array(buffer, this.#windowAt, windowBytes)
  }

  /** The filter is empty. In each thread only the one made last may be used. */
  static create(windowBytes: number, filterBits: number): Rolling {
    const bytes = STATE_BYTES + 2 ** filterBits / 8 + windowBytes
    let code = kept
    if (bytes > KEPT_BYTES) {
      code = instantiate()
    } else if (!code) {
      kept = instantiate()
      code = kept
    }
    const missing = bytes - code.memory.buffer.byteLength
    if (missing > 0) code.memory.grow(Math.ceil(missing / PAGE))
    const rolling = new Rolling(code, windowBytes, filterBits)
    rolling.#filter.fill(0)
    return rolling
  }

  /** Makes the filter let a weak sum through. */
  admit(weak: number): void {
    const bit = Math.imul(weak, SPREAD) >>> this.#shift
    this.#filter[bit >>> 3]! |= 1 << (bit & 7)
  }

  /** The weak sum that the state stands at. */
  get weak(): number {
    return (this.#state[0]! | (this.#state[2]! << 16)) >>> 0
  }

  /** Sums so many bytes of the window. */
  sum(at: number, length: number): void {
    this.#code.sum(this.#windowAt + at, length)
  }

  /** Moves on from `at` until the filter lets a sum through, at most to `stop`; -1 for none. */
  scan(at: number, stop: number, block: number): number {
    const from = this.#windowAt
    const found = this.#code.scan(from + at, from + stop, block, STATE_BYTES, this.#shift)
    return found < 0 ? -1 : found - from
  }

  /** Moves on from `at` by one byte. */
  step(at: number, block: number): void {
    this.#code.step(this.#windowAt + at, block)
  }
}

let kept: Code | undefined

function instantiate(): Code {
  return new WebAssembly.Instance(MODULE).exports as unknown as Code
}

// -----------------------------------------------------------------------------------------------------
// The module's bytes: https://webassembly.github.io/spec/core/binary/

const I32 = 0x7f
const FUNCTION = 0x00
const MEMORY = 0x02
const VOID = 0x40
const block = [0x02, VOID]
const loop = [0x03, VOID]
const end = 0x0b
const br = (depth: number): number[] => [0x0c, depth]
const brIf = (depth: number): number[] => [0x0d, depth]
const get = (local: number): number[] => [0x20, local]
const set = (local: number): number[] => [0x21, local]
const tee = (local: number): number[] => [0x22, local]
const load = (offset: number): number[] => [0x28, 2, offset]
const loadS8 = [0x2c, 0, 0]
const loadU8 = [0x2d, 0, 0]
const store = (offset: number): number[] => [0x36, 2, offset]
const constant = (value: number): number[] => [0x41, ...signedLeb(value | 0)]
const [eqz, geU, add, sub, mul, and, or, shl, shrU] = [0x45, 0x4f, 0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x74, 0x76]

function leb(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)]
}

function signedLeb(value: number): number[] {
  const done = (value >> 6 === 0 && value >= 0) || value >> 6 === -1
  return done ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...signedLeb(value >> 7)]
}

const vector = (items: number[][]): number[] => [...leb(items.length), ...items.flat()]
const section = (id: number, body: number[]): number[] => [id, ...leb(body.length), ...body]
const name = (text: string): number[] => [...leb(text.length), ...Buffer.from(text)]
const signature = (parameters: number, results: number): number[] => [
  0x60,
  ...vector(Array.from({ length: parameters }, () => [I32])),
  ...vector(Array.from({ length: results }, () => [I32])),
]
function body(locals: number, ...code: (number | number[])[]): number[] {
  const bytes = [...vector([[...leb(locals), I32]]), ...code.flat(), end]
  return [...leb(bytes.length), ...bytes]
}

function sumBody(): number[] {
  const [at, length, stop, s1, s2] = [0, 1, 2, 3, 4]
  return body(
    3,
    [get(at), get(length), add, set(stop)].flat(),
    block,
    loop,
    [get(at), get(stop), geU, brIf(1)].flat(),
    [get(s1), get(at), loadS8, add, tee(s1), get(s2), add, set(s2)].flat(),
    [get(at), constant(1), add, set(at), br(0)].flat(),
    end,
    end,
    keepState(s1, s2),
  )
}

function scanBody(): number[] {
  const [at, stop, length, filter, shift, s1, s2, out] = [0, 1, 2, 3, 4, 5, 6, 7]
  return body(
    3,
    takeState(s1, s2),
    block,
    loop,
    // ((s1 & 0xffff) | s2 << 16) * SPREAD >>> shift is the number of a bit of the filter: is it set?
    [get(s1), constant(0xffff), and, get(s2), constant(16), shl, or].flat(),
    [constant(SPREAD), mul, get(shift), shrU, tee(out)].flat(),
    [constant(3), shrU, get(filter), add, loadU8].flat(),
    [get(out), constant(7), and, shrU, constant(1), and, brIf(1)].flat(),
    // At the end without one: -1 tells it.
    [...block, get(at), get(stop), geU, eqz, brIf(0), constant(-1), set(at), br(2), end].flat(),
    rollOne(at, length, s1, s2, out),
    [get(at), constant(1), add, set(at), br(0)].flat(),
    end,
    end,
    keepState(s1, s2),
    get(at),
  )
}

function stepBody(): number[] {
  const [at, length, s1, s2, out] = [0, 1, 2, 3, 4]
  return body(3, takeState(s1, s2), rollOne(at, length, s1, s2, out), keepState(s1, s2))
}

/** s1 += entering - leaving; s2 += s1 - length * leaving. Bytes count as signed. */
function rollOne(at: number, length: number, s1: number, s2: number, out: number): number[] {
  return [
    [get(at), loadS8, set(out)].flat(),
    [get(s1), get(out), sub, get(at), get(length), add, loadS8, add, set(s1)].flat(),
    [get(s2), get(length), get(out), mul, sub, get(s1), add, set(s2)].flat(),
  ].flat(2)
}

function takeState(s1: number, s2: number): number[] {
  return [constant(0), load(0), set(s1), constant(0), load(4), set(s2)].flat()
}

function keepState(s1: number, s2: number): number[] {
  return [constant(0), get(s1), store(0), constant(0), get(s2), store(4)].flat()
}

const MODULE = new WebAssembly.Module(
  Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector([signature(2, 0), signature(5, 1)])),
    ...section(3, vector([[0], [1], [0]])),
    ...section(5, vector([[0x00, 1]])),
    ...section(
      7,
      vector([
        [...name('memory'), MEMORY, 0],
        [...name('sum'), FUNCTION, 0],
        [...name('scan'), FUNCTION, 1],
        [...name('step'), FUNCTION, 2],
      ]),
    ),
    ...section(10, vector([sumBody(), scanBody(), stepBody()])),
  ]),
)
