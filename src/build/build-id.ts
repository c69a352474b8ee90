/** Ids of builds, and the modules that stand for them. */
import { CommandError } from '../errors.ts'

/** Letters, digits, `.`, `_` and `-`, as in `802`, `joyride-2230`, `13.2.0_xo4-13`. */
const BUILD_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/
const MODULE_PREFIX = 'build-'

export function isBuildId(text: string): boolean {
  return BUILD_ID.test(text)
}

/** The id that the module stands for, or undefined when it stands for no build. */
export function idOfModule(module: string): string | undefined {
  const id = module.startsWith(MODULE_PREFIX) ? module.slice(MODULE_PREFIX.length) : ''
  return isBuildId(id) ? id : undefined
}

export function moduleOf(id: string): string {
  return MODULE_PREFIX + id
}

/** An id as an operator typed it. @throws CommandError */
export function checkBuildId(text: string): string {
  if (isBuildId(text)) return text
  throw new CommandError(`"${text}" is no build id`, {
    hint: 'An id has up to 100 letters, digits, dots, dashes and underscores, and begins with a letter or digit.',
  })
}
