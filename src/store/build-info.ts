/** build.json: where a build came from, when, and what is in it. Never changes once the build is visible. */
import { StoreCorrupt } from '../errors.ts'
import type { TreeTotals } from './manifest.ts'

export interface BuildInfo {
  id: string
  /** Name of the source, or "import". */
  source: string
  /** Where the archive came from, as a person would name it. */
  url: string
  /** Of an import, whose rules hold when it is read again; absent in builds of older versions. */
  importedFrom?: 'file' | 'stick' | 'export'
  /** Of an export, the URL of its file, where it can be read again: `url` is where the other server has it from. */
  exportedTo?: string
  /** When the build became visible, ISO 8601. */
  fetched: string
  archiveBytes: number | null
  /** Hex. */
  archiveSha256: string | null
  /** Who vouched for it before it became visible, as a person would say it; absent in builds of older versions. */
  vouchers?: readonly string[]
  totals: TreeTotals
  /** Bytes of packs that came with this build: what it had that no other held build had. */
  addedBytes: number
  /** All files share this mtime (seconds), nearly: `rsync -a` would skip changed files of equal size. */
  uniformMtime: number | null
  /** Hex; of the file `contents`. The store fills it in. */
  contentsSha256?: string
}

/** Of a fingerprint, what people compare: as much as minisign has. */
const KEY_DIGITS = 16
const MAX_SHOWN = 100

/**
 * By what a build was checked, in few words, as in "sha256, gpg key 0123456789ABCDEF"; '' when by nothing. What
 * another has checked, and we have only heard of, says whose word that is: "sha256 (says region)".
 */
export function checkedBy({ vouchers = [] }: Pick<BuildInfo, 'vouchers'>): string {
  return [...new Set(vouchers.flatMap(inFewWords))].join(', ')
}

function inFewWords(voucher: string): string[] {
  // Also where the one behind it has brackets in its name: all that follows is somebody's word.
  const heardAt = voucher.indexOf(' (says ')
  const [own, heard] = heardAt < 0 ? [voucher, ''] : [voucher.slice(0, heardAt), voucher.slice(heardAt)]
  const signer = /^(\S+) in \S+, signed by (.*)/s.exec(own)
  return (signer ? [signer[1]!, signer[2]!] : [own]).flatMap((words) => {
    const key = /^(minisign|gpg) key ([0-9A-F]+)/.exec(words)
    const short = key ? `${key[1]} key ${key[2]!.slice(-KEY_DIGITS)}` : (/^\S+/.exec(words)?.[0] ?? '')
    return short === '' ? [] : [`${short.slice(0, MAX_SHOWN)}${heard.slice(0, MAX_SHOWN)}`]
  })
}

export function encodeInfo(info: BuildInfo): Buffer {
  return Buffer.from(`${JSON.stringify(info, null, 2)}\n`)
}

/** @throws StoreCorrupt when it is not what `encodeInfo` makes. */
export function decodeInfo(path: string, bytes: Uint8Array): BuildInfo {
  let info: Partial<BuildInfo>
  try {
    info = Object(JSON.parse(Buffer.from(bytes).toString('utf8'))) as Partial<BuildInfo>
  } catch (cause) {
    throw new StoreCorrupt(`${path} is not JSON`, { cause })
  }
  const { source, fetched, totals } = info
  if (typeof source !== 'string' || typeof fetched !== 'string' || typeof totals?.files !== 'number')
    throw new StoreCorrupt(`${path} lacks what it should say`)
  return info as BuildInfo
}
