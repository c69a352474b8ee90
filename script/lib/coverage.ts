/** Prints what a campaign has reached: `node coverage.ts REPORTS FOLDER...`, a line for each file that ran. */
import { coverageOf } from '../../test/support/coverage.ts'

const [reports = '', ...folders] = process.argv.slice(2)
for (const folder of folders)
  for (const { file, percent } of coverageOf(reports, folder))
    process.stdout.write(`${folder}${file}: ${percent.toFixed(1)} %\n`)
