/** What `upserv warm` is asked for, from what an operator types. Loaded by every command, so it loads nothing itself. */
import { UsageError } from '../errors.ts'
import type { CodecName } from '../rsync/codecs.ts'
import { STOCK_RELEASES, type StockRelease, stockRelease } from '../rsync/stock-releases.ts'

/** Builds that devices have, in one request. */
export const MAX_WARM_FROM = 100

/** How clients may want file data. */
export const WARM_COMPRESSIONS = [
  'none',
  'auto',
  'zstd',
  'lz4',
  'zlibx',
  'zlib',
] as const satisfies readonly (CodecName | 'none' | 'auto')[]
export type WarmCompression = (typeof WARM_COMPRESSIONS)[number]

/** What devices do when they ask for a build. */
export interface WarmRequest {
  /** The build that they will ask for. */
  id: string
  /** The builds that they have. */
  from: string[]
  /** The releases of rsync that they run. */
  clients: StockRelease[]
  /** How they want it compressed: 'auto' is -z alone. */
  compress: WarmCompression[]
  /** They use -c as well. */
  checksum: boolean
  /** Compress quickly now, and as well as can be later, in the background. */
  quick: boolean
}

/** Lists are separated by commas. */
export interface WarmFlags {
  from: string
  clients: string
  compress: string
  checksum?: boolean
  quick?: boolean
}

/** @throws UsageError for a flag that can't be right. */
export function warmRequest(id: string, flags: WarmFlags): WarmRequest {
  const { from, clients, compress, checksum = false, quick = false } = flags
  return {
    id,
    from: namesIn('--from', from, 'build'),
    clients: releasesOf(clients),
    compress: compressionsOf(compress),
    checksum,
    quick,
  }
}

function releasesOf(text: string): StockRelease[] {
  const releases = namesIn('--clients', text, 'version of rsync').map((version) => {
    const release = stockRelease(version)
    if (release) return release
    throw new UsageError(`--clients: "${version}" is no version of rsync that can be served`, {
      hint: `Such as 3.4.1. What they ask for changed in ${STOCK_RELEASES.join(', ')}.`,
    })
  })
  return [...new Set(releases)]
}

function compressionsOf(text: string): WarmCompression[] {
  const known = new Map<string, WarmCompression>(WARM_COMPRESSIONS.map((name) => [name, name]))
  const compressions = namesIn('--compress', text, 'compression').map((name) => {
    const compression = known.get(name)
    if (compression) return compression
    throw new UsageError(`--compress: "${name}" is not one of ${WARM_COMPRESSIONS.join(', ')}`)
  })
  return [...new Set(compressions)]
}

function namesIn(flag: string, text: string, what: string): string[] {
  const names = text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
  if (names.length === 0) throw new UsageError(`${flag}: names no ${what}`)
  if (names.length > MAX_WARM_FROM) throw new UsageError(`${flag}: names more than ${MAX_WARM_FROM}`)
  return names
}
