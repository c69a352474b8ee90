#!/usr/bin/env node
/** The executable: argv to src/cli, exit code back. */
import { main } from '../src/cli/main.ts'

process.exitCode = await main(process.argv.slice(2))
