/**
 * The token stream of one file: literal bytes and blocks of the client's basis, plain or compressed.
 * docs/rsync-protocol.md, section 8.6.
 */
import { StoreError } from '../errors.ts'
import { type Compressor, MAX_PIECE } from './codecs.ts'
import { type Connection, FRAME_SIZE } from './connection.ts'
import type { Content } from './tree.ts'
import { BlockRuns, encodeChunks } from './wire/tokens.ts'

export interface TokenWriter {
  /** A run of the new file's bytes as they are. A block or the end follows, never another run. */
  literal(start: number, length: number): Promise<void>
  /** A block of the basis, by its number. */
  block(block: number): void
  end(): void
  /**
   * Set once some bytes could not be read. Zeros took their place, since their number was announced; the
   * caller must make sure that the client does not believe them.
   */
  readonly failure: StoreError | undefined
}

/** Literal data goes out in pieces of this size: some releases refuse larger ones. */
const LITERAL = 32 * 1024

export function createTokenWriter(
  connection: Connection,
  content: Content,
  compressor: Compressor | undefined,
  signal: AbortSignal,
): TokenWriter {
  return compressor
    ? new CompressedTokens(connection, content, compressor, signal)
    : new PlainTokens(connection, content, signal)
}

class PlainTokens implements TokenWriter {
  readonly #connection: Connection
  readonly #content: Content
  readonly #signal: AbortSignal
  failure: StoreError | undefined

  constructor(connection: Connection, content: Content, signal: AbortSignal) {
    this.#connection = connection
    this.#content = content
    this.#signal = signal
  }

  /** Reads straight into the frame that goes out. */
  async literal(start: number, length: number): Promise<void> {
    const { out } = this.#connection
    for (let done = 0; done < length; ) {
      const room = Math.max(LITERAL, FRAME_SIZE - out.length)
      const batch = Math.min(length - done, Math.floor(room / LITERAL) * LITERAL)
      const targets: Buffer[] = []
      // One piece of memory for the whole batch: the places of its parts don't move any more.
      const whole = out.space(batch + 4 * Math.ceil(batch / LITERAL))
      for (let filled = 0, at = 0; filled < batch; ) {
        const piece = Math.min(LITERAL, batch - filled)
        whole.writeInt32LE(piece, at)
        targets.push(whole.subarray(at + 4, at + 4 + piece))
        at += 4 + piece
        filled += piece
      }
      this.failure = (await readOrZero(this.#content, targets, start + done)) ?? this.failure
      done += batch
      await this.#connection.flow()
      this.#signal.throwIfAborted()
    }
  }

  block(block: number): void {
    this.#connection.out.i32(-(block + 1))
  }

  end(): void {
    this.#connection.out.i32(0)
  }
}

class CompressedTokens implements TokenWriter {
  readonly #connection: Connection
  readonly #content: Content
  readonly #compressor: Compressor
  readonly #signal: AbortSignal
  readonly #runs = new BlockRuns()
  failure: StoreError | undefined

  constructor(connection: Connection, content: Content, compressor: Compressor, signal: AbortSignal) {
    this.#connection = connection
    this.#content = content
    this.#compressor = compressor
    this.#signal = signal
  }

  async literal(start: number, length: number): Promise<void> {
    this.#runs.flush(this.#connection.out)
    for (let done = 0; done < length; ) {
      const piece = Buffer.allocUnsafe(Math.min(MAX_PIECE, length - done))
      this.failure = (await readOrZero(this.#content, [piece], start + done)) ?? this.failure
      done += piece.length
      for (const part of await this.#compressor.compress(piece, done === length)) {
        encodeChunks(this.#connection.out, part)
      }
      await this.#connection.flow()
      this.#signal.throwIfAborted()
    }
  }

  block(block: number): void {
    this.#runs.add(this.#connection.out, block)
  }

  end(): void {
    this.#runs.end(this.#connection.out)
  }
}

async function readOrZero(
  content: Content,
  targets: Uint8Array[],
  position: number,
): Promise<StoreError | undefined> {
  try {
    await content.read(targets, position)
    return undefined
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    for (const target of targets) target.fill(0)
    return error
  }
}
