/** Releases of rsync, as far as they differ in what they ask of a server: see stock-clients.ts. */

/** Releases that say the same of themselves, by the first of them; the latest first. */
export const STOCK_RELEASES = ['3.2', '3.1', '3.0', '2.6'] as const
export type StockRelease = (typeof STOCK_RELEASES)[number]

/** The releases that one of this version belongs to; undefined for what is no version, or too old. */
export function stockRelease(version: string): StockRelease | undefined {
  const [, major, minor = '0'] = /^(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d{1,3})*$/.exec(version) ?? []
  if (major === undefined) return undefined
  return STOCK_RELEASES.find((release) => {
    const [first, second] = release.split('.').map(Number)
    return Number(major) > first! || (Number(major) === first && Number(minor) >= second!)
  })
}
