/**
 * A directed network with capacities, cut in two at the least capacity.
 * The maximum flow is found by Dinic's algorithm: flow is sent along shortest paths until none is left, then what the source
 * still reaches is its side of a minimum cut (Ford and Fulkerson 1956), the smallest there is. With integer capacities below
 * 2^53 in sum everything is exact; Infinity is a capacity too.
 * Source: Dinic 1970, "Algorithm for solution of a problem of maximum flow in networks with power estimation".
 */
export class FlowNetwork {
  /** Per node its last edge, per edge the one before it from the same node; -1 for none. Edge e ^ 1 is e turned round. */
  private readonly lastEdge: number[] = [];
  private readonly edgeBefore: number[] = [];
  private readonly target: number[] = [];
  /** What an edge can still take. */
  private readonly residual: number[] = [];

  addNode(): number {
    return this.lastEdge.push(-1) - 1;
  }

  connect(from: number, to: number, capacity: number): void {
    this.addEdge(from, to, capacity);
    this.addEdge(to, from, 0);
  }

  /**
   * The minimum cut between two nodes whose source's side is smallest: for each node whether it is on the source's side, and
   * the capacity of all edges from that side to the other, which must be finite. The network is used up.
   */
  minimumCut(source: number, sink: number): { capacity: number; sourceSide: Uint8Array } {
    const levels = new Int32Array(this.lastEdge.length);
    let capacity = 0;
    while (this.setLevels(levels, source, sink)) capacity += this.augment(levels, source, sink);
    return { capacity, sourceSide: Uint8Array.from(levels, (level) => (level < 0 ? 0 : 1)) };
  }

  private addEdge(from: number, to: number, capacity: number): void {
    this.edgeBefore.push(this.lastEdge[from]!);
    this.lastEdge[from] = this.target.push(to) - 1;
    this.residual.push(capacity);
  }

  /** Distances from the source along edges with room, -1 where there is no way; false if there is none to the sink. */
  private setLevels(levels: Int32Array, source: number, sink: number): boolean {
    const { lastEdge, edgeBefore, target, residual } = this;
    levels.fill(-1);
    levels[source] = 0;
    const queue = [source];
    for (let i = 0; i < queue.length; i++) {
      const node = queue[i]!;
      for (let edge = lastEdge[node]!; edge >= 0; edge = edgeBefore[edge]!) {
        const next = target[edge]!;
        if (residual[edge]! <= 0 || levels[next]! >= 0) continue;
        levels[next] = levels[node]! + 1;
        if (next === sink) return true; // nothing further away is on a shortest path
        queue.push(next);
      }
    }
    return false;
  }

  /** Sends flow along shortest paths until each has a full edge; returns how much. */
  private augment(levels: Int32Array, source: number, sink: number): number {
    const { edgeBefore, target, residual } = this;
    const nextEdge = Int32Array.from(this.lastEdge);
    const path: number[] = [];
    let sent = 0;
    for (let node = source; ; ) {
      if (node === sink) {
        const amount = path.reduce((least, edge) => Math.min(least, residual[edge]!), Infinity);
        for (const edge of path) {
          residual[edge]! -= amount;
          residual[edge ^ 1]! += amount;
        }
        sent += amount;
        path.length = path.findIndex((edge) => residual[edge] === 0); // back to before the first full edge
        node = path.length === 0 ? source : target[path.at(-1)!]!;
        continue;
      }
      let edge = nextEdge[node]!;
      while (edge >= 0 && !(residual[edge]! > 0 && levels[target[edge]!] === levels[node]! + 1))
        edge = edgeBefore[edge]!;
      nextEdge[node] = edge;
      if (edge >= 0) {
        path.push(edge);
        node = target[edge]!;
      } else {
        if (node === source) return sent;
        levels[node] = -1; // a dead end
        node = target[path.pop()! ^ 1]!;
      }
    }
  }
}
