/** fast-check with the seed of this run (random.ts), which a failure prints: FUZZ_SEED=... repeats it. */
import fc from 'fast-check'
import { seedOfRun } from './random.ts'

fc.configureGlobal({ seed: seedOfRun() })

export { fc }
