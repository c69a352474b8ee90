/**
 * What `upserv doctor` finds out about ports, by coming as a client does. Those that the server has says it
 * itself; where none runs, those of the configuration are looked at.
 */
import { connect, createServer } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { Agent, request } from 'undici'
import { type Config, formatListen, type Listen, parseListen } from '../config/config.ts'
import { type Finding, ok, problem, warning } from '../lib/finding.ts'
import { PATIENCE_MS, type ServerState } from './checks.ts'

/** What a client meets at an address. */
type Met = 'ours' | 'other' | 'nobody'

interface Protocol {
  readonly name: 'rsync' | 'rsync over TLS' | 'HTTP' | 'HTTPS'
  /** Where the server that runs says that it has it. */
  readonly running: readonly Listen[] | undefined
  readonly configured: readonly Listen[]
  readonly meet: (host: string, port: number) => Promise<Met>
}

/** @param askAgain for a server that the socket of systemd has started when we came. */
export async function checkPorts(
  { rsync, http }: Config,
  server: ServerState,
  askAgain: () => Promise<ServerState>,
): Promise<Finding[]> {
  const { status } = server
  const protocols: Protocol[] = [
    {
      name: 'rsync',
      running: status?.listening.flatMap((address) => parseListen(address) ?? []),
      configured: rsync.listen,
      meet: (host, port) => meetRsync(host, port, false),
    },
    {
      name: 'rsync over TLS',
      running: status?.tlsListening.flatMap((address) => parseListen(address) ?? []),
      configured: rsync.tlsListen,
      meet: (host, port) => meetRsync(host, port, true),
    },
    {
      name: 'HTTPS',
      running: status?.httpUrls.flatMap((url) => listenOf(url, 'https')),
      configured: http.tlsListen,
      meet: (host, port) => meetHttp(host, port, 'https'),
    },
    {
      name: 'HTTP',
      running: status?.httpUrls.flatMap((url) => listenOf(url, 'http')),
      configured: http.listen,
      meet: (host, port) => meetHttp(host, port, 'http'),
    },
  ]
  const checks = protocols.flatMap((protocol) => {
    const { running, configured } = protocol
    if (running && running.length > 0) return running.map((listen) => checkOpened(protocol, listen))
    // One that a command or xinetd's client started has no port of its own, and nobody misses its page.
    if (running && isHttp(protocol)) return []
    return configured.map((listen) => checkConfigured(protocol, listen, server.runs, askAgain))
  })
  return Promise.all(checks)
}

const whoHas = ({ port }: Listen): string => `See what it is: ss -ltnp 'sport = :${port}'`
const aboutOf = ({ name }: Protocol, { port }: Listen): string => `${name} port ${port}`

/** One that the server has. */
async function checkOpened(protocol: Protocol, listen: Listen): Promise<Finding> {
  const where = formatListen(listen)
  return (await meet(protocol, listen)) === 'ours'
    ? ok(aboutOf(protocol, listen), `clients are answered on ${where}`)
    : problem(aboutOf(protocol, listen), `the server does not answer on ${where}`, whoHas(listen))
}

/** One that the configuration names. @param runs whether there is a server, without such a port as far as one knows. */
async function checkConfigured(
  protocol: Protocol,
  listen: Listen,
  runs: boolean,
  askAgain: () => Promise<ServerState>,
): Promise<Finding> {
  const about = aboutOf(protocol, listen)
  const where = formatListen(listen)
  if (listen.port === 0) return warning(about, `${where} is another one at each start`, 'Give it a number.')
  const failure = await whyNotListen(listen)
  if (!failure) {
    return isHttp(protocol)
      ? ok(about, `${where} is free`)
      : warning(
          about,
          `nobody listens on ${where}`,
          `systemctl enable --now ${socketOf(protocol)}, or upserv serve`,
        )
  }
  if (failure.code !== 'EADDRINUSE' && failure.code !== 'EACCES') {
    const hint = 'Name an address of this machine: ip addr'
    return problem(about, `nobody can listen on ${where}: ${failure.message}`, hint)
  }
  const met = await meet(protocol, listen)
  if (met === 'ours' && (runs || (await askAgain()).runs))
    return ok(about, `clients are answered on ${where}`)
  if (met === 'ours' && !isHttp(protocol)) {
    return warning(
      about,
      `something that speaks rsync listens on ${where}, but no server owns the data directory`,
      `${whoHas(listen)}. Debian's own rsync daemon goes by: systemctl disable --now rsync`,
    )
  }
  if (met === 'nobody' && failure.code === 'EACCES') {
    return warning(
      about,
      `nobody listens on ${where}, which is for privileged processes`,
      `systemctl enable --now ${socketOf(protocol)}, or another port, as in --rsync :8873`,
    )
  }
  return problem(about, `${where} is taken by another program`, whoHas(listen))
}

function whyNotListen({ host, port }: Listen): Promise<NodeJS.ErrnoException | undefined> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', resolve)
    server.listen(port, host, () => server.close(() => resolve(undefined)))
  })
}

async function meet({ meet }: Protocol, { host, port }: Listen): Promise<Met> {
  if (host !== '::') return await meet(host === '0.0.0.0' ? '127.0.0.1' : host, port)
  const met = await meet('::1', port)
  // A machine without IPv6 listens on [::] by way of IPv4.
  return met === 'nobody' ? await meet('127.0.0.1', port) : met
}

const socketOf = ({ name }: Protocol): string =>
  name === 'rsync over TLS' ? 'upserv-tls.socket' : 'upserv.socket'
const isHttp = ({ name }: Protocol): boolean => name.startsWith('HTTP')

function listenOf(url: string, scheme: 'http' | 'https'): Listen[] {
  const [, found, address = ''] = /^(\w+):\/\/(.*)$/.exec(url) ?? []
  return found === scheme ? [parseListen(address) ?? []].flat() : []
}

/** Whether a port answers is asked here; whether its certificate is good is another check's. */
function meetRsync(host: string, port: number, tls: boolean): Promise<Met> {
  const socket = tls ? connectTls({ host, port, rejectUnauthorized: false }) : connect({ host, port })
  return new Promise((resolve) => {
    const settle = (met: Met): void => {
      clearTimeout(late)
      // Who leaves in good order is nothing to complain of.
      socket.end('\n')
      socket.destroySoon()
      resolve(met)
    }
    const late = setTimeout(() => settle('other'), PATIENCE_MS)
    socket.once('data', (bytes) =>
      settle(bytes.toString('latin1').startsWith('@RSYNCD: ') ? 'ours' : 'other'),
    )
    socket.once('end', () => settle('other'))
    socket.once('error', (error) => settle(isNobody(error) ? 'nobody' : 'other'))
  })
}

async function meetHttp(host: string, port: number, scheme: 'http' | 'https'): Promise<Met> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } })
  try {
    const { statusCode, body } = await request(`${scheme}://${formatListen({ host, port })}/healthz`, {
      dispatcher,
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    const text = await body.text()
    // Where clients need certificates, we have none to show.
    const wantsCertificate = statusCode === 403 && text.includes('"ACCESS_DENIED"')
    return wantsCertificate || /^(?:ok|stopping)\n$/.test(text) ? 'ours' : 'other'
  } catch (error) {
    return isNobody(error) ? 'nobody' : 'other'
  } finally {
    await dispatcher.destroy()
  }
}

function isNobody(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return (
    code === 'ECONNREFUSED' || code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT' || code === 'ENETUNREACH'
  )
}
