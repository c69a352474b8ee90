/** `upserv fetch`, `import` and `export`: progress on stderr, one line that changes when a person looks on. */
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CommanderError } from 'commander'
import type { ImportForm } from '../build/operations.ts'
import { STICK_DIRECTORY } from '../build/stick.ts'
import type { Config } from '../config/config.ts'
import { CommandError, Interrupted } from '../errors.ts'
import { showText } from '../lib/bytes.ts'
import { formatSize } from '../lib/units.ts'
import { parseBundleHead } from '../source/bundle.ts'
import { StorePaths } from '../store/paths.ts'
import { EXIT } from './exit.ts'
import { withOperations } from './operations.ts'
import { asOwner, otherOwner } from './owner.ts'
import { type ForPrograms, formatBar, printDone } from './text.ts'

const BAR_WIDTH = 20

export async function fetchCommand(config: Config, id: string, flags: ForPrograms): Promise<void> {
  const fetched = await withProgress((say, signal) =>
    withOperations(config, (operations) => operations.fetch(id, say, signal), { long: true }),
  )
  printDone(flags, { id, fetched }, fetched ? `build ${id} is fetched` : `build ${id} is held already`)
}

/** @param flags `as`: the id, where it was given. @throws CommanderError where it has to be. */
export async function importCommand(
  config: Config,
  what: string,
  flags: ForPrograms & { as?: string },
): Promise<void> {
  const imported = await importAll(config, what, flags.as)
  const lines = imported.map((id) => `build ${id} is imported`)
  printDone(flags, { imported }, ...(lines.length > 0 ? lines : ['nothing new is on it']))
}

/** @returns the ids of the builds that were made. */
async function importAll(config: Config, what: string, id: string | undefined): Promise<readonly string[]> {
  if (what === '-') {
    const started = await startOf(process.stdin)
    if (started.start.length === 0)
      throw new CommandError('there is nothing to import: standard input is empty')
    return [await importStream(config, started, id)]
  }
  const path = resolve(what)
  const stats = statsOf(path)
  if (stats?.isDirectory() && statsOf(join(path, STICK_DIRECTORY))?.isDirectory()) {
    return await withProgress((say, signal) =>
      withOperations(config, (operations) => operations.importStick(path, say, signal), { long: true }),
    )
  }
  if (stats?.isDirectory()) {
    const known = id ?? missingId()
    const tar = spawn(
      'tar',
      [
        '-C',
        path,
        '--format=pax',
        '--sort=name',
        '--numeric-owner',
        '--xattrs',
        '--xattrs-include=*',
        '-cf',
        '-',
        '.',
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const ended = new Promise<number | null>((settle, reject) =>
      tar.once('close', settle).once('error', reject),
    )
    const whole = async (): Promise<void> => {
      const code = await ended
      if (code !== 0) throw new CommandError(`tar could not read all of ${path} (exit ${code})`)
    }
    return [await importStream(config, { start: Buffer.alloc(0), stream: tar.stdout }, known, whole)]
  }
  const bundle = stats?.isFile() ? parseBundleHead(readStart(path)) : undefined
  const named = id ?? bundle?.id ?? missingId()
  await importFile(config, path, named, bundle ? 'export' : 'archive')
  return [named]
}

/** Undefined for what cannot be looked at, as another user may be able to: the server says what it is. */
function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

async function importFile(config: Config, file: string, id: string, form: ImportForm): Promise<void> {
  await withProgress((say, signal) =>
    withOperations(config, (operations) => operations.import(file, id, form, say, signal), { long: true }),
  )
}

interface Started {
  /** What was read of it to see what it is. */
  start: Buffer
  stream: Readable
}

/**
 * What comes as a stream goes to the server through a FIFO, whoever the server runs as.
 * @returns the build's id.
 */
async function importStream(
  config: Config,
  { start, stream }: Started,
  given: string | undefined,
  check?: () => Promise<void>,
): Promise<string> {
  const bundle = parseBundleHead(start)
  const id = given ?? bundle?.id ?? missingId()
  await withFifo(config, async (fifo) => {
    const abort = new AbortController()
    let unread: Error | undefined
    const noting =
      check &&
      (async (): Promise<void> => {
        try {
          await check()
        } catch (error) {
          unread = error as Error
          throw error
        }
      })
    const pouring = pour(start, stream, fifo, noting, abort.signal)
    pouring.catch(() => {})
    try {
      await importFile(config, fifo, id, bundle ? 'export' : 'archive')
    } catch (error) {
      // What could not be read here is why it broke off there.
      throw unread ?? error
    } finally {
      abort.abort()
    }
    await pouring
  })
  return id
}

/** The end of an archive, as tar writes it: two records, over which its closing zeros may lie. */
const TAR_END_BYTES = 2 * 10_240
const TAR_BLOCK_BYTES = 512

/** The same bytes, of which the last come only once the check has passed: without them it is no archive. */
async function* endingWith(
  check: () => Promise<void>,
  stream: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let held: Uint8Array = Buffer.alloc(0)
  let isFirst = true
  for await (const chunk of stream) {
    const both = Buffer.concat([held, chunk])
    // The first block comes at once: whoever reads waits for it, and not for long.
    const sure = Math.max(isFirst ? TAR_BLOCK_BYTES : 0, both.length - TAR_END_BYTES)
    if (sure > 0) yield both.subarray(0, sure)
    held = both.subarray(sure)
    isFirst = false
  }
  await check()
  yield held
}

/** A stream that failed is broken off without an end, so that no half of it is taken for a whole. */
async function pour(
  start: Buffer,
  stream: Readable,
  fifo: string,
  check: (() => Promise<void>) | undefined,
  signal: AbortSignal,
): Promise<void> {
  async function* all(): AsyncGenerator<Uint8Array> {
    if (start.length > 0) yield start
    yield* check ? endingWith(check, stream) : (stream as AsyncIterable<Uint8Array>)
  }
  // What a program has written is lost when it ends before anybody reads: that begins at once.
  const begun = new PassThrough()
  const writing = async (source: AsyncIterable<Uint8Array>): Promise<void> => {
    const file = await openFifo(fifo, constants.O_WRONLY)
    await pipeline(source, file.createWriteStream())
  }
  await pipeline(Readable.from(all()), begun, writing, { signal }).catch((error: Error) => {
    // The server has read what it needs, or has said by itself what is wrong.
    if (!signal.aborted && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
  })
}

export async function exportCommand(
  config: Config,
  id: string,
  file: string,
  flags: ForPrograms & { have?: readonly string[] },
): Promise<void> {
  const { json = false, have = [] } = flags
  if (json && file === '-')
    throw new CommandError('--json would be written into the build, which goes to standard output', {
      hint: 'Name a file, or leave --json out: the exit code tells whether it is whole.',
    })
  const path = resolve(file)
  if (file !== '-' && existsSync(path))
    throw new CommandError(`${file} exists already`, { hint: 'Remove it, or name another.' })
  const writing = `${path}.part`
  const shown = file === '-' ? 'standard output' : file
  const cannotWrite = (cause: Error): CommandError =>
    new CommandError(`${shown} cannot be written: ${cause.message}`, { cause })
  // Before anything is asked of the server: a stick may be read-only, or not there.
  const target =
    file === '-'
      ? process.stdout
      : await open(writing, 'w').then(
          (handle) => handle.createWriteStream(),
          (error: Error) => Promise.reject(cannotWrite(error)),
        )
  // This is told before our end of the FIFO closes, which is all that the server knows of it.
  let unwritten: Error | undefined
  target.once('error', (error: Error) => {
    unwritten = error
  })
  try {
    await withFifo(config, async (fifo) => {
      const abort = new AbortController()
      const copying = openFifo(fifo, constants.O_RDONLY).then((pipe) =>
        pipeline(pipe.createReadStream(), target, { signal: abort.signal }),
      )
      copying.catch(() => {})
      try {
        await withProgress((_say, signal) =>
          withOperations(config, (operations) => operations.export(id, have, fifo, signal), {
            long: true,
            before: () => {
              if (file !== '-') mustStayRoot(config, id)
            },
          }),
        )
        await copying
      } catch (error) {
        // Taken before we break off the writing ourselves.
        const why = unwritten
        abort.abort()
        throw why ? cannotWrite(why) : error
      }
    })
    if (file !== '-') renameSync(writing, path)
  } catch (error) {
    if (file !== '-') rmSync(writing, { force: true })
    throw error
  }
  if (file === '-') return
  const { size } = statSync(path)
  printDone(flags, { id, file: path, have, bytes: size }, `build ${id} is exported: ${formatSize(size)}`)
}

/** A file is given its name at the end, which the owner of the data directory may not do where root may. */
function mustStayRoot({ dataDir }: Config, id: string): void {
  if (!otherOwner(dataDir)) return
  throw new CommandError('while no server runs, root exports as the owner of the data directory does', {
    hint: `Let the shell open the file: upserv export ${id} - >FILE. Or start the server.`,
  })
}

/**
 * A FIFO that a server of another user can use too; its name is ours alone to know. It lies where a server looks that
 * sees little else, as systemd lets it: its /tmp is not ours. Where there is no store yet there is no server.
 */
async function withFifo({ dataDir }: Config, use: (path: string) => Promise<void>): Promise<void> {
  const paths = new StorePaths(dataDir)
  const directory = existsSync(paths.format) ? paths.newPipe() : join(tmpdir(), `upserv-pipe-${randomUUID()}`)
  const path = join(directory, 'pipe')
  const run = (program: string, ...args: string[]): void => {
    execFileSync(program, args, { ...asOwner(dataDir), cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] })
  }
  try {
    run('mkdir', '-m', '0711', directory)
  } catch (cause) {
    throw new CommandError(`nothing can be handed to the server: ${(cause as Error).message}`, {
      hint: 'Run this as root, or as the user that owns the data directory.',
      cause,
    })
  }
  try {
    run('mkfifo', '-m', '0666', path)
    await use(path)
  } finally {
    // Whichever end of ours still waits for the other to be opened waits no longer.
    closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW))
    run('rm', '-rf', directory)
  }
}

/** Our end of it. What lies there in its place is neither read nor written. */
async function openFifo(path: string, access: number): Promise<FileHandle> {
  const file = await open(path, access | constants.O_NOFOLLOW)
  if ((await file.stat()).isFIFO()) return file
  await file.close()
  throw new CommandError(`${path} is not what it was made as`)
}

/** The first bytes of a stream, which still has the rest. */
async function startOf(stream: Readable): Promise<Started> {
  const chunks: Buffer[] = []
  let bytes = 0
  while (bytes < HEAD_BYTES) {
    const chunk = (await nextOf(stream)) as Buffer | undefined
    if (!chunk) break
    chunks.push(chunk)
    bytes += chunk.length
  }
  return { start: Buffer.concat(chunks), stream }
}

function nextOf(stream: Readable): Promise<Buffer | undefined> {
  return new Promise((settle, reject) => {
    const look = (): void => {
      const chunk = stream.read() as Buffer | null
      if (chunk === null && !stream.readableEnded) return
      stream.off('readable', look).off('end', look).off('error', reject)
      settle(chunk ?? undefined)
    }
    stream.on('readable', look).once('end', look).once('error', reject)
    look()
  })
}

/** What tells an export from archives. */
const HEAD_BYTES = 4096

function readStart(path: string): Buffer {
  const file = openSync(path, 'r')
  try {
    const bytes = Buffer.alloc(64 << 10)
    return bytes.subarray(0, readSync(file, bytes))
  } finally {
    closeSync(file)
  }
}

/** An archive does not say which build it is. */
function missingId(): never {
  process.stderr.write("error: required option '--as <id>' not specified\n(see: upserv --help)\n")
  throw new CommanderError(EXIT.usage, 'upserv.missingId', 'no --as')
}

/** @param onStop what who stops it with ^C should know. */
export async function withProgress<T>(
  work: (say: (line: string) => void, signal: AbortSignal) => Promise<T>,
  onStop = 'What was downloaded is kept. A running server goes on fetching.',
): Promise<T> {
  const abort = new AbortController()
  const onSignal = (): void => abort.abort(new Interrupted('stopped', { hint: onStop }))
  process.once('SIGINT', onSignal)
  process.once('SIGTERM', onSignal)
  const { isTTY, columns } = process.stderr
  const say = (text: string): void => {
    // A parent server's words among others.
    const line = showText(text)
    // On a terminal each line takes the place of the one before, behind a bar where it tells how far it is.
    const percent = isTTY ? /(?:^|: )(\d{1,3}) %/.exec(line)?.[1] : undefined
    const bar = percent === undefined ? '' : `${formatBar(Number(percent) / 100, BAR_WIDTH)} `
    process.stderr.write(isTTY ? `\r\x1b[K${(bar + line).slice(0, (columns || 80) - 1)}` : `${line}\n`)
  }
  try {
    return await work(say, abort.signal)
  } finally {
    if (isTTY) process.stderr.write('\r\x1b[K')
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}
