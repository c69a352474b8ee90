/** Which files this process has open: for tests of what is to be closed. */
import { readdirSync, readlinkSync } from 'node:fs'

/** Paths of open files below a directory, one for each descriptor. */
export function openFilesBelow(directory: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.startsWith(`${directory}/`))
    } catch {
      // The directory that we read just now.
      return []
    }
  })
}
