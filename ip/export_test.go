package ip

// BatchSize is how many operations go into one send.
const BatchSize = batchSize

// SetWatchBuffer sets how many bytes of notifications the next Watch holds.
func (k *LinuxKernel) SetWatchBuffer(bytes int) { k.watchBuffer = bytes }

// Calls returns how many sends and receives batches have taken.
func (k *LinuxKernel) Calls() (sends, receives int) { return k.sock.sends, k.sock.receives }

// SnapshotBeside is Snapshot as it is made of a dump.
func (s State) SnapshotBeside(known Snapshot) Snapshot { return s.snapshot(known) }
