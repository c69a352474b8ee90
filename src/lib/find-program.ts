/** Looks for installed programs, as a shell would: the first executable file of that name in PATH. */
import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

const found = new Map<string, string>()

/**
 * Where `name` is, or undefined. What was found is remembered; what was not is looked for again next
 * time, so that installing a missing program needs no restart.
 */
export async function findProgram(name: string): Promise<string | undefined> {
  const known = found.get(name)
  if (known !== undefined) return known
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    if (directory === '') continue // the current directory, to a shell: nothing we would run from
    const path = join(directory, name)
    if (await isExecutableFile(path)) {
      found.set(name, path)
      return path
    }
  }
  return undefined
}

async function isExecutableFile(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK)
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}
