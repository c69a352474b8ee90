/** The program under test as an operator runs it: `bin/upserv serve` with a data directory and sources. */
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { type RunOptions, type RunResult, run, ServerProcess } from './processes.ts'

/** The program: this checkout's, or the one that is named, as a package has it. */
export const UPSERV =
  process.env.UPSERV_PROGRAM ?? fileURLToPath(new URL('../../bin/upserv', import.meta.url))

export interface UpservOptions {
  /** The data directory; made by upserv when it is missing. */
  data: string
  /** URL templates, as `--source` takes them. */
  sources?: readonly string[]
  /** HOST:PORT to listen on. Without it any free port: a server that is restarted keeps its port this way. */
  rsync?: string
  /** HOST:PORT for the web page, or 'off'. */
  http?: string
  budget?: string
  config?: string
  /** More arguments, as they are. */
  args?: readonly string[]
  env?: NodeJS.ProcessEnv
}

export interface Upserv {
  readonly port: number
  /** `rsync://127.0.0.1:PORT` */
  readonly url: string
  /** The whole line that it printed when it was ready. */
  readonly ready: string
  readonly process: ServerProcess
  /** Runs a subcommand on the same data directory. */
  cli(args: readonly string[], options?: RunOptions): Promise<RunResult>
  /** Ends it the orderly way, which must be exit 0. */
  stop(): Promise<void>
  /** Ends it as a crash or a power cut would. */
  kill9(): Promise<void>
}

/** Starts upserv and waits until it accepts connections. */
export async function startUpserv(options: UpservOptions): Promise<Upserv> {
  const { data, sources = [], rsync = '127.0.0.1:0', http = 'off', budget, config, args = [] } = options
  const server = new ServerProcess(
    UPSERV,
    [
      'serve',
      ...(config === undefined ? [] : ['--config', config]),
      ...['--data', data, '--rsync', rsync, '--http', http],
      ...(budget === undefined ? [] : ['--budget', budget]),
      ...sources.flatMap((source) => ['--source', source]),
      ...args,
    ],
    { env: { ...process.env, ...options.env } },
  )
  const [ready, port] = await server.waitForOutput('stdout', /^listening rsync:\/\/\S+:(\d+).*$/m)
  return {
    port: Number(port),
    url: `rsync://127.0.0.1:${port}`,
    ready,
    process: server,
    cli: (cliArgs, runOptions) => upserv([...cliArgs, '--data', data], runOptions),
    stop: async () => {
      const code = await server.stop('SIGTERM')
      assert.equal(code, 0, `upserv did not end well after SIGTERM\n${server.stderr}`)
    },
    kill9: async () => {
      await server.stop('SIGKILL')
    },
  }
}

/** Runs any upserv command to its end. */
export function upserv(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(UPSERV, args, options)
}
