/**
 * Counts what reached this page, from the numbers of the events alone.
 *
 * It asks nothing of the client library, so that it would notice the library's mistakes too. A merged
 * event covers the range from its `from_seq` to its `seq`.
 */
export class Ledger {
  received = 0;
  covered = 0;
  missing = 0;
  doubled = 0;
  merged = 0;
  gaps = 0;
  /** Events that gaps said are lost, where a number could be told. */
  toldLost = 0;
  last = null;
  #epoch = null;

  /** The place where the first connection starts: nothing before it is expected. */
  begin(position) {
    if (this.#epoch === null) this.#moveTo(position, 0);
  }

  event({ id, seq, from_seq: first = seq }) {
    const [epoch] = id.split(":");
    this.received += 1;
    if (first < seq) this.merged += 1;
    if (epoch !== this.#epoch) {
      // Only a gap may change the epoch; everything before this event is unaccounted for.
      this.missing += 1;
      this.#epoch = epoch;
      this.last = first - 1;
    }
    const isNew = first > this.last;
    if (!isNew) this.doubled += Math.min(seq, this.last) - first + 1;
    if (first > this.last + 1) this.missing += first - this.last - 1;
    this.covered += Math.max(0, seq - Math.max(this.last, first - 1));
    this.last = Math.max(this.last, seq);
  }

  /** A loss that was told. Returns how many events, or `null` if that cannot be known. */
  gap({ after, resumes_at: next }) {
    const [oldEpoch, oldSeq] = after.split(":");
    const [epoch, seq] = next.split(":");
    const lost = oldEpoch === epoch ? Number(seq) - Number(oldSeq) - 1 : null;
    this.gaps += 1;
    this.toldLost += lost ?? 0;
    this.#moveTo(next, -1);
    return lost;
  }

  get isWhole() {
    return this.missing === 0 && this.doubled === 0;
  }

  #moveTo(position, by) {
    const [epoch, seq] = position.split(":");
    this.#epoch = epoch;
    this.last = Number(seq) + by;
  }
}
