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
  /** Files in PEM: it speaks TLS. With `clientCa` it asks clients for certificates; `wants` says which. */
  tls?: { certificate: string; key: string; clientCa?: string; wants?: 'on' | 'optional_no_ca' }
  /** More of its configuration, for its server. */
  directives?: string
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
  /** What the client said of who it is; '' for nothing. */
  authorization: string
  /** The name in the client's certificate. */
  clientName: string
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
  directives = '',
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
  log_format upserv '$request_method\\t$request_uri\\t$status\\t$bytes_sent\\t$http_range\\t$http_authorization\\t$ssl_client_s_dn';
  access_log ${accessLog} upserv;
  default_type application/octet-stream;
  autoindex on;
  sendfile on;
  ${limitRate === undefined ? '' : `limit_rate ${limitRate};`}
  ${temporary.map((name) => `${name}_temp_path ${join(scratch, `temp-${name}`)};`).join('\n  ')}
  server {
    listen 127.0.0.1:${listen}${tls ? ' ssl' : ''};
    ${tls ? `ssl_certificate "${tls.certificate}"; ssl_certificate_key "${tls.key}";` : ''}
    ${tls?.clientCa === undefined ? '' : `ssl_client_certificate "${tls.clientCa}"; ssl_verify_client ${tls.wants ?? 'on'};`}
    ${directives}
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
      const fields = line.split('\t').map((field) => (field === '-' ? '' : field))
      const [method = '', path = '', status, bytes, range = '', authorization = '', clientName = ''] = fields
      return { method, path, status: Number(status), bytes: Number(bytes), range, authorization, clientName }
    })
}
