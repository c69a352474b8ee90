/**
 * The argument vector that a client sends after "OK", as the options of this transfer.
 * docs/rsync-protocol.md, section 2.
 */
import { ascii, type ByteString, showBytes } from '../../lib/bytes.ts'

/** More arguments than any client sends (the stock server's own limit), and the most bytes of them. */
export const MAX_ARGUMENTS = 16000
export const MAX_ARGUMENT_BYTES = 1 << 20

/** What the client asked for, as far as the sending side must know. */
export interface TransferOptions {
  /** False: the client wants to upload. */
  readonly sender: boolean
  readonly recurse: boolean
  /** -d: name directories without descending into them. */
  readonly dirs: boolean
  readonly listOnly: boolean
  readonly dryRun: boolean
  readonly links: boolean
  readonly copyLinks: boolean
  readonly copyDirlinks: boolean
  readonly copyUnsafeLinks: boolean
  readonly hardLinks: boolean
  readonly owner: boolean
  readonly group: boolean
  readonly devices: boolean
  readonly specials: boolean
  readonly atimes: boolean
  readonly crtimes: boolean
  readonly acls: boolean
  /** 0, 1 for -X, 2 for -XX. */
  readonly xattrs: number
  readonly checksum: boolean
  readonly cvsExclude: boolean
  readonly relative: boolean
  /** Parent directories of -R names are sent; always so from protocol 30 on. */
  readonly impliedDirs: boolean
  readonly backup: boolean
  readonly numericIds: boolean
  readonly inplace: boolean
  /** 0, 1 for --append, 2 for --append --append (verify). */
  readonly append: number
  /** The client wants compression. */
  readonly compress: boolean
  /** The codec the client insists on; undefined leaves it to negotiation. */
  readonly compressChoice: string | undefined
  /** As asked for, however far out of range: each codec brings it into its own. */
  readonly compressLevel: number | undefined
  /** `--skip-compress`, verbatim. */
  readonly skipCompress: ByteString | undefined
  /** `--checksum-choice`, verbatim. */
  readonly checksumChoice: string | undefined
  readonly checksumSeed: number | undefined
  readonly missingArgs: 'report' | 'ignore' | 'delete'
  readonly ignoreErrors: boolean
  readonly removeSource: boolean
  readonly copyDevices: boolean
  /** `-` for names from the socket, else a path inside the module; undefined without --files-from. */
  readonly filesFrom: ByteString | undefined
  /** The list's names end in NUL, not in a line end. Always so on the socket. */
  readonly from0: boolean
  readonly iconv: string | undefined
  /** Seconds; 0 for none. */
  readonly timeout: number
  /** Bytes per second; 0 for unlimited. */
  readonly bandwidth: number
  /** Letters of the client info string: what the client is able to do. */
  readonly info: string
  readonly secluded: boolean
  /** Path arguments as sent, module name included. */
  readonly paths: readonly ByteString[]
  /**
   * What is wrong with the arguments; undefined for nothing. To be told once the setup is complete: before
   * it no text can reach the client (section 10.1).
   */
  readonly problem: string | undefined
}

type Draft = { -readonly [K in keyof TransferOptions]: TransferOptions[K] } & { relativeSet?: boolean }

/**
 * Parses the vector(s). `secluded` is the second vector that a client with `s` in its cluster sends.
 * Unknown options are ignored, as the stock client sends many that concern it alone. A value that can't be
 * right is the result's `problem`.
 */
export function parseArguments(
  vector: readonly ByteString[],
  secluded?: readonly ByteString[],
): TransferOptions {
  const { options, paths } = splitArguments(vector, secluded)
  const draft: Draft = { ...NOTHING, paths, secluded: secluded !== undefined }
  for (const option of options) {
    if (option.startsWith('--')) readLongOption(option, draft)
    else readCluster(option.slice(1), draft)
  }
  if (draft.filesFrom !== undefined) {
    if (draft.relativeSet !== false) draft.relative = true
    // Directories that are named are sent; with a slash behind them their contents, one level.
    if (!draft.recurse) draft.dirs = true
  }
  if (draft.listOnly && !draft.recurse) draft.dirs = true
  delete draft.relativeSet
  return Object.freeze(draft)
}

/** True when this first vector says that a second one follows (section 2.3). */
export function announcesSecludedArguments(vector: readonly ByteString[]): boolean {
  const cluster = vector.find((a) => a.length > 1 && a[0] === '-' && a[1] !== '-')
  return cluster !== undefined && cluster.slice(1).split('e', 1)[0]!.includes('s')
}

/** What the vectors say, as options and paths. */
export interface SplitArguments {
  /** Unescaped, each with its value behind a `=`, as they are carried out: whoever refuses some looks here. */
  readonly options: readonly ByteString[]
  readonly paths: readonly ByteString[]
}

/** Splits what `parseArguments` understands: what is no option here has no effect there. */
export function splitArguments(
  vector: readonly ByteString[],
  secluded?: readonly ByteString[],
): SplitArguments {
  if (secluded) {
    const first = takeOptions(
      vector.map(unescapeOption).filter((argument) => argument.startsWith('-')),
      true,
    )
    // Its first string stands for the program's name.
    const second = takeOptions(secluded.slice(1), false)
    return { options: [...first.options, ...second.options], paths: second.paths }
  }
  const dot = vector.indexOf(ascii('.'))
  const options = dot < 0 ? vector : vector.slice(0, dot)
  return takeOptions([...options.map(unescapeOption), ...(dot < 0 ? [] : vector.slice(dot))], false)
}

function takeOptions(args: readonly ByteString[], optionsOnly: boolean): SplitArguments {
  const options: ByteString[] = []
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!
    if (arg === '.' && !optionsOnly) return { options, paths: args.slice(i + 1) }
    if (!arg.startsWith('-') || arg.length === 1) continue
    const value = SEPARATE_VALUE.has(arg) ? args[++i] : undefined
    options.push(value === undefined ? arg : (`${arg}=${value}` as ByteString))
  }
  return { options, paths: [] }
}

function readCluster(letters: string, draft: Draft): void {
  for (let i = 0; i < letters.length; i++) {
    switch (letters[i]) {
      case 'e':
        draft.info = letters.slice(i + 1)
        return
      case 'B': // block size, -B<n>: every sum head says it again
      case '@': // --modify-window
        return
      case 'r':
        draft.recurse = true
        break
      case 'd':
        draft.dirs = true
        break
      case 'n':
        draft.dryRun = true
        break
      case 'l':
        draft.links = true
        break
      case 'L':
        draft.copyLinks = true
        break
      case 'k':
        draft.copyDirlinks = true
        break
      case 'H':
        draft.hardLinks = true
        break
      case 'o':
        draft.owner = true
        break
      case 'g':
        draft.group = true
        break
      case 'D':
        draft.devices = true
        draft.specials = true
        break
      case 'U':
        draft.atimes = true
        break
      case 'N':
        draft.crtimes = true
        break
      case 'A':
        draft.acls = true
        break
      case 'X':
        draft.xattrs = Math.min(2, draft.xattrs + 1)
        break
      case 'c':
        draft.checksum = true
        break
      case 'C':
        draft.cvsExclude = true
        break
      case 'R':
        draft.relative = true
        break
      case 'b':
        draft.backup = true
        break
      case 'z':
        draft.compress = true
        break
    }
  }
}

function readLongOption(option: ByteString, draft: Draft): void {
  const name = option.split('=', 1)[0]!
  const value = name.length < option.length ? (option.slice(name.length + 1) as ByteString) : undefined
  switch (name) {
    case '--sender':
      draft.sender = true
      break
    case '--list-only':
      draft.listOnly = true
      break
    case '--numeric-ids':
      draft.numericIds = true
      break
    case '--specials':
      draft.specials = true
      break
    case '--no-specials':
      draft.specials = false
      break
    case '--copy-unsafe-links':
      draft.copyUnsafeLinks = true
      break
    case '--inplace':
    case '--write-devices':
      draft.inplace = true
      break
    case '--append':
      draft.append = Math.min(2, draft.append + 1)
      break
    case '--compress-level':
      draft.compressLevel = integer(name, value, -(2 ** 31), 2 ** 31 - 1, draft)
      draft.compress = true
      break
    case '--new-compress':
      draft.compressChoice = 'zlibx'
      draft.compress = true
      break
    case '--old-compress':
      draft.compressChoice = 'zlib'
      draft.compress = true
      break
    case '--compress-choice':
      draft.compressChoice = value ?? ''
      draft.compress = draft.compressChoice !== 'none'
      break
    case '--skip-compress':
      draft.skipCompress = value ?? ascii('')
      break
    case '--checksum-choice':
      draft.checksumChoice = value ?? ''
      break
    case '--checksum-seed':
      draft.checksumSeed = (integer(name, value, -(2 ** 31), 2 ** 32 - 1, draft) ?? 0) | 0
      break
    case '--ignore-missing-args':
      draft.missingArgs = 'ignore'
      break
    case '--delete-missing-args':
      draft.missingArgs = 'delete'
      break
    case '--ignore-errors':
      draft.ignoreErrors = true
      break
    case '--remove-source-files':
    case '--remove-sent-files':
      draft.removeSource = true
      break
    case '--copy-devices':
      draft.copyDevices = true
      break
    case '--files-from':
      draft.filesFrom = value ?? ascii('')
      break
    case '--from0':
      draft.from0 = true
      break
    case '--relative':
      draft.relativeSet = true
      draft.relative = true
      break
    case '--no-relative':
      draft.relativeSet = false
      draft.relative = false
      break
    case '--no-implied-dirs':
      draft.impliedDirs = false
      break
    case '--iconv':
      draft.iconv = value ?? ''
      break
    case '--timeout':
      draft.timeout = integer(name, value, 0, 2 ** 31 - 1, draft) ?? 0
      break
    case '--bwlimit':
      draft.bandwidth = rate(name, value, draft) ?? 0
      break
  }
}

/** Undefined, and noted as the problem, for what is no whole number in the range. */
function integer(
  name: string,
  value: ByteString | undefined,
  min: number,
  max: number,
  draft: Draft,
): number | undefined {
  const number = value !== undefined && /^-?\d{1,12}$/.test(value) ? Number(value) : Number.NaN
  if (number >= min && number <= max) return number
  draft.problem ??= `${name} needs a whole number from ${min} to ${max}, not "${showBytes(value ?? ascii(''), 50)}"`
  return undefined
}

/**
 * Bytes per second: KiB where no unit is said. Clients send whole KiB; by -M whatever --bwlimit takes, with
 * units such as "50m", "1.5MB" (of 1000) or "1.5MiB".
 */
function rate(name: string, value: ByteString | undefined, draft: Draft): number | undefined {
  const [, digits, unit = '', decimal] =
    /^(\d{0,12}(?:\.\d{0,12})?)([bkmgt]?)(?:(b)|ib)?$/i.exec(value ?? 'x') ?? []
  if (value === '' || /\d/.test(digits ?? '')) {
    const power = unit === '' ? 1 : 'bkmgt'.indexOf(unit.toLowerCase())
    const bytes = Number(digits) * (decimal ? 1000 : 1024) ** power
    if (bytes === 0 || bytes >= MIN_RATE) return Math.min(Math.round(bytes), Number.MAX_SAFE_INTEGER)
  }
  draft.problem ??= `${name} needs 0 or a rate of at least ${MIN_RATE} bytes a second, such as 100, 1.5m or 1g, not "${showBytes(value ?? ascii(''), 50)}"`
  return undefined
}

/** As the stock server has it: nobody can wait for less. */
const MIN_RATE = 512

/** `\X` stands for X in what precedes the `.`: clients from 3.2.4 on escape option values (section 2.2). */
function unescapeOption(argument: ByteString): ByteString {
  return argument.replace(/\\([\s\S])/g, '$1') as ByteString
}

/** Long options whose value is the next argument when it is not joined by `=` (section 2.7). */
const SEPARATE_VALUE = new Set([
  '--files-from',
  '--backup-dir',
  '--partial-dir',
  '--temp-dir',
  '--compare-dest',
  '--copy-dest',
  '--link-dest',
  '--min-size',
  '--max-size',
])

const NOTHING: TransferOptions = {
  sender: false,
  recurse: false,
  dirs: false,
  listOnly: false,
  dryRun: false,
  links: false,
  copyLinks: false,
  copyDirlinks: false,
  copyUnsafeLinks: false,
  hardLinks: false,
  owner: false,
  group: false,
  devices: false,
  specials: false,
  atimes: false,
  crtimes: false,
  acls: false,
  xattrs: 0,
  checksum: false,
  cvsExclude: false,
  relative: false,
  impliedDirs: true,
  backup: false,
  numericIds: false,
  inplace: false,
  append: 0,
  compress: false,
  compressChoice: undefined,
  compressLevel: undefined,
  skipCompress: undefined,
  checksumChoice: undefined,
  checksumSeed: undefined,
  missingArgs: 'report',
  ignoreErrors: false,
  removeSource: false,
  copyDevices: false,
  filesFrom: undefined,
  from0: false,
  iconv: undefined,
  timeout: 0,
  bandwidth: 0,
  info: '',
  secluded: false,
  paths: [],
  problem: undefined,
}
