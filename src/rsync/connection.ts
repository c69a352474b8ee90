/**
 * A connection as the session sees it: bytes in, bytes out, multiplexed once both sides agreed to.
 *
 * Input is pulled as it is needed and output flushed before waiting for input, or a moment later, so the peer
 * has all that it waits for, and what waits in memory is bounded: one frame out, one piece in.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ConnectionLost, PeerError } from '../errors.ts'
import { ByteReader } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { asBuffer, type ByteString, utf8Bytes } from '../lib/bytes.ts'
import { FRAME_SIZE, giveMemory, takeMemory } from './slabs.ts'
import {
  decodeFrameHeader,
  FRAME_HEADER_SIZE,
  FRAME_MAX,
  TAG,
  TEXT_MAX,
  writeFrameHeader,
} from './wire/mux.ts'

/** What a door gives: TCP, TLS, a pipe. */
export interface Duplex {
  /** The next bytes, or undefined when the peer sends no more. */
  read(): Promise<Uint8Array | undefined>
  /**
   * Takes the buffer over; resolves when there is room for more.
   * @param whenDone called once nobody reads the buffer any more.
   * @throws ConnectionLost
   */
  write(data: Uint8Array, whenDone?: () => void): Promise<void>
  /** How fast it may be written to, as the server has it; undefined for as fast as it goes. */
  readonly pace?: Pace | undefined
}

/** What keeps a connection to its share of the server's bandwidth. */
export interface Pace {
  /** Bytes to write at a time. */
  readonly pieceSize: number
  /** Waits until so much may be written; undefined when that is now. */
  take(bytes: number): Promise<void> | undefined
}

/** What a connection takes that says little. */
const START_SIZE = 1024
/** From this size on a frame of their own costs less than copying the bytes into one. */
const WORTH_NO_COPY = 32 * 1024
/** Messages of a client that are longer than this are passed over unread. */
const MAX_MESSAGE = 64 * 1024

export class Connection {
  readonly #door: Duplex
  readonly #raw: ByteReader
  /** In-band bytes for the peer: codecs append here; `flow` and `flush` send them. */
  readonly out = new ByteWriter(START_SIZE, takeMemory)
  #input: ByteReader
  #outMuxed = false
  #inMuxed = false
  #frameLeft = 0
  #written = 0
  #bandwidth = 0
  #allowance = 0
  #allowanceAt = 0
  /** When something last went out, by `now`. */
  #lastWrite: number
  /** Since when a read, and a write, waits for the peer. */
  #readingSince: number | undefined
  #writingSince: number | undefined
  #writes = 0
  #lingers = false
  readonly #linger = new Linger(() => this.flush())
  readonly #now: () => number

  constructor(door: Duplex, now: () => number) {
    this.#door = door
    this.#now = now
    this.#lastWrite = now()
    this.#raw = new ByteReader(() => this.#pull())
    this.#input = this.#raw
  }

  /** Where in-band bytes are read from. */
  get in(): ByteReader {
    return this.#input
  }

  get bytesRead(): number {
    return this.#raw.consumed
  }

  get bytesWritten(): number {
    return this.#written
  }

  get lastWrite(): number {
    return this.#lastWrite
  }

  /**
   * Since when the peer keeps us waiting: for what it should say, or for room for what we say. Undefined
   * while it does not. An empty frame that it takes is no sign of life: the kernel takes it.
   */
  get waitingSince(): number | undefined {
    return this.#writingSince ?? this.#readingSince
  }

  /** Since when the peer takes nothing of what we say; undefined while it does. */
  get unheardSince(): number | undefined {
    return this.#writingSince
  }

  get outMuxed(): boolean {
    return this.#outMuxed
  }

  /** From now on what we send travels in frames. */
  async startMuxOut(): Promise<void> {
    await this.flush()
    this.#outMuxed = true
    this.#beginFrame()
  }

  /** From now on what we read travels in frames. */
  startMuxIn(): void {
    this.#inMuxed = true
    this.#input = new ByteReader(() => this.#pullFrame())
  }

  /**
   * Runs `body` on the bytes of the connection itself: --files-from at protocol 30 leaves the frames for
   * a while. The frame before must have been read to its end.
   */
  async outsideFrames<T>(body: (raw: ByteReader) => Promise<T>): Promise<T> {
    if (this.#inMuxed && (this.#frameLeft > 0 || this.#input.available > 0)) {
      throw new PeerError('mux-header', 'names of --files-from begin inside a frame')
    }
    return body(this.#raw)
  }

  /** Bytes per second that we may send; 0 for as many as we like. */
  limitBandwidth(bytesPerSecond: number): void {
    this.#bandwidth = bytesPerSecond
    this.#allowanceAt = this.#now()
  }

  /**
   * In-band bytes that somebody else made: large ones go out without a copy.
   * @param whenDone called once nobody reads them any more: until then they stay as they are.
   */
  append(bytes: Uint8Array, whenDone?: () => void): Promise<void> | undefined {
    if (bytes.length >= WORTH_NO_COPY) return this.#appendWhole(bytes, whenDone)
    this.out.bytes(bytes)
    whenDone?.()
    return this.flow()
  }

  /** Sends what has collected once it is worth a frame. Call between items. */
  flow(): Promise<void> | undefined {
    return this.out.length >= (this.#bandwidth ? SMALL_FRAME : FRAME_SIZE) ? this.flush() : undefined
  }

  /**
   * Whether what has collected may wait a moment for more: for a peer that goes on asking whether we answer or not,
   * as each small write costs both sides as much as a large one.
   */
  linger(mayWait: boolean): void {
    this.#lingers = mayWait
  }

  /** Sends what has collected. */
  async flush(): Promise<void> {
    const head = this.#outMuxed ? FRAME_HEADER_SIZE : 0
    if (this.out.length <= head) return
    const { bytes, memory } = this.out.detach(START_SIZE)
    const done = (): void => giveMemory(memory)
    if (!this.#outMuxed) return this.#send([bytes], done)
    this.#beginFrame()
    // One frame, for whose header there is room; more than one only of an item that is larger than most.
    const first = bytes.subarray(0, head + FRAME_MAX)
    writeFrameHeader(first, 0, TAG.data, first.length - head)
    await this.#send([first, ...framesOf(bytes.subarray(first.length))], done)
  }

  async #appendWhole(bytes: Uint8Array, whenDone?: () => void): Promise<void> {
    await this.flush()
    const whole = asBuffer(bytes)
    await this.#send(this.#outMuxed ? [...framesOf(whole)] : [whole], whenDone)
  }

  /** The next bytes of the peer, who has or soon gets all that we have said. */
  async #pull(): Promise<Uint8Array | undefined> {
    const lingers = this.#lingers && this.#now() - this.#lastWrite < LINGER_MS
    if (!lingers) await this.flush()
    else if (this.out.length > FRAME_HEADER_SIZE) this.#linger.start()
    this.#readingSince = this.#now()
    try {
      return await this.#door.read()
    } finally {
      this.#readingSince = undefined
      const flushing = lingers && this.#linger.stop()
      if (flushing) await flushing
    }
  }

  /** A message beside the in-band bytes. */
  async message(tag: number, payload: Uint8Array): Promise<void> {
    await this.flush()
    const frame = Buffer.allocUnsafe(FRAME_HEADER_SIZE + payload.length)
    writeFrameHeader(frame, 0, tag, payload.length)
    frame.set(payload, FRAME_HEADER_SIZE)
    await this.#send([frame])
  }

  /** A line of text for the person at the client; cut to what every client takes. */
  text(tag: number, text: string): Promise<void> {
    return this.message(tag, Buffer.from(text.endsWith('\n') ? text : `${text}\n`).subarray(0, TEXT_MAX))
  }

  /** An empty frame: tells a client that waits that we are alive. None is needed while something goes out. */
  async keepAlive(): Promise<void> {
    if (this.#writes > 0) return
    const frame = Buffer.alloc(FRAME_HEADER_SIZE)
    writeFrameHeader(frame, 0, TAG.data, 0)
    await this.#send([frame])
  }

  /** A line of the text phase. */
  async line(text: string): Promise<void> {
    this.out.string(utf8Bytes(`${text}\n`))
    await this.flush()
  }

  /** Reads up to a terminator, which is taken and not returned. @throws PeerError when none comes soon. */
  async readUntil(terminator: number, limit: number, field: string): Promise<ByteString> {
    const bytes = await this.#input.until(terminator, limit)
    if (!bytes) throw new PeerError(field, `longer than ${limit} bytes`)
    return bytes.toString('latin1') as ByteString
  }

  #beginFrame(): void {
    this.out.i32(0) // room for the frame's header
  }

  /** Nothing else comes between the parts. */
  async #send(parts: Buffer[], whenDone?: () => void): Promise<void> {
    this.#writes++
    for (const part of parts) await this.#sendPart(part, part === parts.at(-1) ? whenDone : undefined)
    if (--this.#writes === 0) this.#writingSince = undefined
  }

  async #sendPart(data: Buffer, whenDone: (() => void) | undefined): Promise<void> {
    this.#written += data.length
    // At a limited rate in slices, so that the client sees something move however slow that is.
    const { pace } = this.#door
    const asked = this.#bandwidth > 0 ? Math.ceil(this.#bandwidth / SLICES_PER_SECOND) : data.length
    const slice = Math.min(asked, pace?.pieceSize ?? asked)
    for (let at = 0; at < data.length; at += slice) {
      const piece = data.subarray(at, at + slice)
      // Here it is we who keep the peer waiting.
      const room = pace?.take(piece.length)
      if (room) await room
      this.#writingSince = this.#now()
      if (this.#bandwidth > 0) await this.#pace(piece.length)
      await this.#door.write(piece, at + slice >= data.length ? whenDone : undefined)
      this.#lastWrite = this.#now()
    }
  }

  /** A bucket that fills at the permitted rate and holds one slice. */
  async #pace(bytes: number): Promise<void> {
    const now = this.#now()
    const most = this.#bandwidth / SLICES_PER_SECOND
    this.#allowance =
      Math.min(most, this.#allowance + ((now - this.#allowanceAt) / 1000) * this.#bandwidth) - bytes
    this.#allowanceAt = now
    if (this.#allowance < 0) await sleep((-this.#allowance / this.#bandwidth) * 1000)
  }

  async #pullFrame(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#frameLeft > 0) {
        const piece = await this.#raw.some(this.#frameLeft)
        if (!piece) throw new ConnectionLost('the peer closed the connection inside a frame')
        this.#frameLeft -= piece.length
        return piece
      }
      if (this.#raw.available === 0 && (await this.#raw.ended())) return undefined
      const { tag, length } = await this.#raw.decode(decodeFrameHeader)
      if (tag === TAG.data) {
        this.#frameLeft = length
      } else if (tag === TAG.errorExit) {
        throw new ConnectionLost('the client gave up')
      } else {
        if (length > MAX_MESSAGE) throw new PeerError('mux-header', `a message of ${length} bytes`)
        await this.#raw.discard(length)
      }
    }
  }
}

/** Nobody notices so much, and a busy client asks for dozens of files meanwhile. */
const LINGER_MS = 4

/** Sends what has collected when the peer has kept us waiting for a moment. */
class Linger {
  readonly #flush: () => Promise<void>
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> | undefined

  constructor(flush: () => Promise<void>) {
    this.#flush = flush
  }

  start(): void {
    this.#timer = setTimeout(() => {
      this.#flushing = this.#flush()
      // Whoever waits for the peer hears of what goes wrong.
      this.#flushing.catch(() => {})
    }, LINGER_MS)
  }

  /** What is being sent, if anything. */
  stop(): Promise<void> | undefined {
    clearTimeout(this.#timer)
    const flushing = this.#flushing
    this.#flushing = undefined
    return flushing
  }
}

/** In as many frames as it takes, each piece behind its header. */
function* framesOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += FRAME_MAX) {
    const piece = bytes.subarray(at, at + FRAME_MAX)
    const head = Buffer.allocUnsafe(FRAME_HEADER_SIZE)
    writeFrameHeader(head, 0, TAG.data, piece.length)
    yield head
    yield piece
  }
}

/** With a limited rate, small frames make for an even flow. */
const SMALL_FRAME = 8 * 1024
const SLICES_PER_SECOND = 10
