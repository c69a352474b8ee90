/** What runs in the threads of the pool: see derived.ts. */
import { runTask, type Task } from './tasks.ts'

export default (task: Task): Promise<unknown> => runTask(task)
