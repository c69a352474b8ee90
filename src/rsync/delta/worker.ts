/** What runs in the threads of the pool: see derived.ts. Classes of errors do not survive the way back. */
import { type ErrorReport, reportError, UpservError } from '../../errors.ts'
import { checkProgram } from '../../lib/module-path.ts'
import { type Place, runTask, type Task } from './tasks.ts'

export interface Work {
  task: Task
  place: Place | Uint8Array
}

export type WorkResult = { value: unknown } | { error: ErrorReport }

export default async ({ task, place }: Work): Promise<WorkResult> => {
  try {
    checkProgram()
    return { value: await runTask(task, place) }
  } catch (error) {
    if (!(error instanceof UpservError)) throw error
    return { error: reportError(error) }
  }
}
