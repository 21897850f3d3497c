package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

// The peers are written to the state folder within peersPause of a change after a quiet time, so that a host that loses
// power soon after its start knows them, and once in peersPeriod while they go on changing: the file is as large as the
// cluster. Those that have come since are appended.
const (
	peersPause  = time.Second
	peersPeriod = 30 * time.Second
)

// peersFile is the file with what the source of the leases has told. Its methods may be called by any goroutine.
type peersFile struct {
	dir     *subnet.StateDir
	memory  func() subnet.Memory
	log     *slog.Logger
	changed trigger.Trigger // something has changed since the file was written whole

	whole sync.Mutex // held while the file is written whole

	mu         sync.Mutex       // guards all below, and the file where it is not being written whole
	position   *subnet.Position // of what was last written whole; nil: nothing was
	appendable bool             // it is not being written whole, and no append has failed since it was
	latest     subnet.View      // of the last pass
	written    subnet.Peers     // that the file has
}

func newPeersFile(o Options) *peersFile {
	return &peersFile{dir: o.StateDir, memory: o.Leases.Memory, log: o.Log, changed: trigger.New()}
}

// holds reports whether what was written whole is of the history of the store that has led to a position.
func (f *peersFile) holds(now subnet.Position) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holdsLocked(now)
}

func (f *peersFile) holdsLocked(now subnet.Position) bool {
	return f.position != nil && now.Cluster == f.position.Cluster && now.Revision >= f.position.Revision
}

// add appends the peers that have come. It waits for no disk: while the file is written whole, they are appended when
// that is done.
func (f *peersFile) add(v subnet.View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest = v
	f.appendLocked()
}

// appendLocked appends to a file that can take it and is not newer than what there is to append.
func (f *peersFile) appendLocked() {
	if !f.appendable || !f.holdsLocked(f.latest.Position) {
		return
	}
	if err := f.dir.AddPeers(f.written, f.latest.Peers); err != nil {
		f.appendable = false
		f.log.Debug("new peers not appended to the peers file, it is soon rewritten", "error", err)
		return
	}
	f.written = f.latest.Peers
}

// save writes the file whole if something has changed, or the last try has failed.
func (f *peersFile) save() error {
	f.whole.Lock()
	defer f.whole.Unlock()
	select {
	case <-f.changed:
	default:
		return nil
	}
	f.mu.Lock()
	f.appendable = false
	before := f.latest.Peers
	f.mu.Unlock()
	m := f.memory()
	err := f.dir.SaveMemory(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.changed.Set()
		return err
	}
	at := m.Position
	f.position, f.appendable, f.written = &at, true, before
	f.appendLocked()
	return nil
}

// KeepPeers writes the peers soon after a change, ever more rarely while they go on changing, and once more when ctx
// ends. It sleeps while nothing changes.
func (p *Publisher) KeepPeers(ctx context.Context) error {
	f, pause, saved, failing := p.peers, peersPause, time.Time{}, ""
	for {
		select {
		case <-ctx.Done():
			return f.save()
		case <-f.changed:
			f.changed.Set()
		}
		if time.Since(saved) > pause {
			pause = peersPause
		}
		if trigger.Pause(ctx, pause) != nil {
			return f.save()
		}
		text := textOf(f.save())
		if text != "" && text != failing {
			f.log.Error("write peers file failed, retrying", "error", text)
		}
		failing = text
		pause, saved = min(2*pause, peersPeriod), time.Now()
	}
}
