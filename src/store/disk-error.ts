/**
 * What the disk says when it refuses, in our words: the one place where error numbers get their meaning.
 * Whoever waits for a build reads these messages, so none of them is a bare "ENOSPC: no space left".
 */
import { NoRoom, StoreError, UpservError } from '../errors.ts'

const HINTS: Record<string, string> = {
  EIO: 'The disk may be failing: look at the kernel log (`dmesg`).',
  EROFS: 'The file system is mounted read-only: look at the kernel log (`dmesg`) and remount it.',
  EMFILE: 'Raise the limit of open files (LimitNOFILE=, `ulimit -n`).',
  ENFILE: 'The whole system is at its limit of open files: raise fs.file-max.',
  EACCES: 'Everything in data_dir must belong to the user that upserv runs as.',
  EPERM: 'Everything in data_dir must belong to the user that upserv runs as.',
}

/** The process lacks something; the file that was asked for has nothing to do with it. */
const EXHAUSTED: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM'])

/** The disk is full, or what we may have of it is. */
export function isDiskFull(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'ENOSPC' || code === 'EDQUOT'
}

/** True for an error that says something about this one file, so that all others can still be used. */
export function isAboutFile(error: unknown): boolean {
  if (error instanceof StoreError) return true
  const code = codeOf(error)
  return code !== undefined && !EXHAUSTED.has(code)
}

/**
 * True where the disk gave nothing, so that nothing is known of what is there: it may be whole, and be read
 * another time. What was read and is wrong, or is not there at all, is something else.
 */
export function isUnreadable(error: unknown): boolean {
  const code = codeOf(error)
  return code !== undefined && code !== 'ENOENT'
}

/** Asks once more where the disk gives nothing, before anything is concluded from that. */
export async function askTwice<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (!isUnreadable(error)) throw error
    return await ask()
  }
}

/**
 * An error of the file system as a StoreError, NoRoom where that is what it means. Our own errors, and
 * what is a bug, come back as they are.
 */
export function diskError(error: unknown, path: string): unknown {
  const code = codeOf(error)
  if (code === undefined) return error
  const { message } = error as Error
  if (isDiskFull(error)) {
    const what = code === 'EDQUOT' ? 'the disk quota is used up' : 'the disk is full'
    return new NoRoom(`${what}: ${path} could not be written`, {
      hint: 'Lower `budget`, or make room: see `df`, `df -i` and `quota` for the file system of data_dir.',
      cause: error,
    })
  }
  const hint = HINTS[code]
  return new StoreError(`${path}: ${message}`, { ...(hint === undefined ? {} : { hint }), cause: error })
}

/** The system's name of the error; undefined for what is not the system's. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof UpservError || !('syscall' in error)) return undefined
  const { code } = error as NodeJS.ErrnoException
  return typeof code === 'string' ? code : undefined
}
