import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** A proxy that cuts connections after so many bytes of the server, drawn anew for each. */
export class Cutter {
  cuts = 0;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  readonly #frozen = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** `limit` says after how many bytes the next connection is cut; `Infinity` never. */
  static async start(port: number, limit: () => number): Promise<Cutter> {
    const server = createServer();
    const cutter = new Cutter(server);
    server.on("connection", (client) => cutter.#carry(client, port, limit()));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return cutter;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cut all connections now. */
  cut(): void {
    for (const socket of this.#open) {
      this.cuts++;
      socket.resetAndDestroy();
    }
  }

  /** Carry nothing more on the connections that are open, and say nothing of it. */
  freeze(): void {
    for (const socket of this.#open) this.#frozen.add(socket);
  }

  async stop(): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #carry(client: Socket, port: number, limit: number): void {
    const server = connect(port, "127.0.0.1");
    let left = limit;
    const end = (): void => {
      if (this.#frozen.has(client)) return;
      client.destroy();
      server.destroy();
      this.#open.delete(client);
    };
    this.#open.add(client);
    client.on("data", (data: Buffer) => this.#frozen.has(client) || server.write(data));
    server.on("data", (data: Buffer) => {
      if (this.#frozen.has(client)) return;
      client.write(data.subarray(0, left));
      left -= data.length;
      if (left > 0) return;
      this.cuts++;
      // A reset, as a network that is gone shows itself at last.
      client.resetAndDestroy();
      end();
    });
    for (const socket of [client, server]) {
      socket.on("error", end);
      socket.on("close", end);
    }
  }
}
