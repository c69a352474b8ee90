/**
 * SQLite as Node has it, without the warning that earlier releases of Node 24 print when it is loaded: who runs a
 * server can do nothing about it. All other warnings are printed as ever.
 */
const { emitWarning } = process

process.emitWarning = ((warning: string | Error, ...more: never[]): void => {
  if (String(warning).startsWith('SQLite is an experimental feature')) return
  emitWarning.call(process, warning, ...more)
}) as typeof process.emitWarning

/** Loaded here and now: an import would be loaded before the line above. */
export const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
process.emitWarning = emitWarning
