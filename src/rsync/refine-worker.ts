/** The thread that compresses as hard as it can be done, when nobody else needs the processor. See refiner.ts. */
import { constants, setPriority } from 'node:os'
import { alone } from '../lib/bytes.ts'
import { checkProgram } from '../lib/module-path.ts'
import { type CodecName, createBestFrame, type FrameCompressor, squeezeBest } from './codecs.ts'

/** A literal run, or a piece of one. */
export interface SqueezeTask {
  type: 'squeeze'
  codec: CodecName
  bytes: Uint8Array
  last: boolean
  history: Uint8Array | undefined
}

/** The next run of a frame, which begins with the first. */
export interface FrameTask {
  type: 'frame'
  frame: number
  first: boolean
  /** Undefined: nothing follows, give it up. */
  bytes: Uint8Array | undefined
  last: boolean
}

try {
  // On Linux this is the thread's own priority, not that of the process.
  setPriority(0, constants.priority.PRIORITY_LOW)
} catch {
  // Not allowed here: then it competes with the others.
}

const frames = new Map<number, FrameCompressor>()

/** @returns undefined when this thread knows no such frame: it began in one that has ended since. */
async function addToFrame({ frame, first, bytes, last }: FrameTask): Promise<Uint8Array[] | undefined> {
  const compressor = first ? createBestFrame() : frames.get(frame)
  frames.set(frame, compressor!)
  const added = bytes && (await compressor?.add(bytes, last))?.map(alone)
  if (!bytes || last || !added) {
    compressor?.close()
    frames.delete(frame)
  }
  return added
}

export default (task: SqueezeTask | FrameTask): Uint8Array[] | Promise<Uint8Array[] | undefined> => {
  checkProgram()
  if (task.type === 'frame') return addToFrame(task)
  return squeezeBest(task.codec, task.bytes, task.last, task.history)
}
