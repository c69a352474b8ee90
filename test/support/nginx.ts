/**
 * A real web server as the upstream: ranges, ETags and access log as mirrors have them. It can be slowed
 * down, killed in the middle of a download and started again on the same port.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, ServerProcess, waitForPort } from './processes.ts'
import { isRoot } from './scratch.ts'

export interface NginxOptions {
  /** What it serves. */
  root: string
  /** Where its configuration, logs and temporary files go; made if missing. */
  scratch: string
  /** The same port as before, after a restart. */
  port?: number
  /** nginx's own notation: '200k' is 200 KiB a second for each connection. */
  limitRate?: string
  /** Files in PEM: it speaks TLS. */
  tls?: { certificate: string; key: string }
  /** A server that it passes requests on to, in place of files: `http://HOST:PORT`. */
  passTo?: string
}

/** One line of the access log. `bytes` counts what went over the wire, headers included. */
export interface NginxRequest {
  method: string
  path: string
  status: number
  bytes: number
  range: string
}

export interface Nginx {
  readonly port: number
  /** `http://127.0.0.1:PORT`, or `https://` */
  readonly url: string
  /** The requests so far, oldest first. Written when a response ends. */
  requests(): NginxRequest[]
  stop(): Promise<void>
  /** Breaks every connection off, as a crash would. */
  kill(): Promise<void>
}

export async function startNginx({
  root,
  scratch,
  port,
  limitRate,
  tls,
  passTo,
}: NginxOptions): Promise<Nginx> {
  mkdirSync(scratch, { recursive: true })
  const listen = port ?? (await freePort())
  const accessLog = join(scratch, 'access.log')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    join(scratch, 'nginx.conf'),
    `daemon off;
master_process off; # one process: a signal reaches all there is
${isRoot ? 'user root;' : ''}
pid ${join(scratch, 'nginx.pid')};
error_log ${join(scratch, 'error.log')} info;
events { worker_connections 256; }
http {
  log_format upserv '$request_method\\t$request_uri\\t$status\\t$bytes_sent\\t$http_range';
  access_log ${accessLog} upserv;
  default_type application/octet-stream;
  autoindex on;
  sendfile on;
  ${limitRate === undefined ? '' : `limit_rate ${limitRate};`}
  ${temporary.map((name) => `${name}_temp_path ${join(scratch, `temp-${name}`)};`).join('\n  ')}
  server {
    listen 127.0.0.1:${listen}${tls ? ' ssl' : ''};
    ${tls ? `ssl_certificate "${tls.certificate}"; ssl_certificate_key "${tls.key}";` : ''}
    root "${root}";
    ${passTo === undefined ? '' : `location / { proxy_pass ${passTo}; proxy_set_header Host $http_host; proxy_http_version 1.1; proxy_buffering off; client_max_body_size 0; }`}
  }
}
`,
  )
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } // where Debian has it
  const server = new ServerProcess('nginx', ['-p', scratch, '-c', join(scratch, 'nginx.conf')], { env })
  await waitForPort(listen, server)
  return {
    port: listen,
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${listen}`,
    requests: () => parseAccessLog(readFileSync(accessLog, 'latin1')),
    stop: async () => {
      await server.stop('SIGQUIT')
    },
    kill: async () => {
      await server.stop('SIGKILL')
    },
  }
}

function parseAccessLog(text: string): NginxRequest[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [method = '', path = '', status, bytes, range = ''] = line.split('\t')
      return { method, path, status: Number(status), bytes: Number(bytes), range: range === '-' ? '' : range }
    })
}
