/** The thread that compresses as hard as it can be done, when nobody else needs the processor. See refiner.ts. */
import { constants, setPriority } from 'node:os'
import { type CodecName, squeezeBest } from './codecs.ts'

/** A literal run, or a piece of one. */
export interface SqueezeTask {
  codec: CodecName
  bytes: Uint8Array
  last: boolean
  history: Uint8Array | undefined
}

try {
  // On Linux this is the thread's own priority, not that of the process.
  setPriority(0, constants.priority.PRIORITY_LOW)
} catch {
  // Not allowed here: then it competes with the others.
}

export default ({ codec, bytes, last, history }: SqueezeTask): Uint8Array[] =>
  squeezeBest(codec, bytes, last, history)
