package subnet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Memory is what a host remembers of its store over a restart, so that it knows its peers while the store is away, and
// need not read everything again once it is back.
type Memory struct {
	Position
	// Records are those of all hosts. One without a revision is stale: the store had lost it already.
	Records []*Entry
	Claims  []Entry
	Bad     []BadRecord
	// Trail are the changes by which the store can prove that it is still the same, from a write of a record with a store
	// lease on. Without it, everything must be read again.
	Trail []Event
}

// Stale returns records as a memory has those that the store had lost.
func Stale(records ...Record) []*Entry {
	var out []*Entry
	for _, r := range records {
		out = append(out, &Entry{Record: r})
	}
	return out
}

// Peers returns the records, but for that of the host with an identity.
func (m Memory) Peers(identity string) []Record {
	var out []Record
	for _, e := range m.Records {
		if identity == "" || e.Identity != identity {
			out = append(out, e.Record)
		}
	}
	return out
}

// Snapshot returns what the store had, and the records that are stale: without a trail all are.
func (m Memory) Snapshot() (s Snapshot, stale []*Entry) {
	s = Snapshot{Position: m.Position, Claims: m.Claims, Bad: m.Bad}
	for _, e := range m.Records {
		if e.Revision != 0 && len(m.Trail) > 0 {
			s.Entries = append(s.Entries, e)
			continue
		}
		stale = append(stale, &Entry{Record: e.Record, Key: e.Record.Key()})
	}
	return s, stale
}

// memoryHead is the first line of the file; each of the others is a record. Those that AddPeers has appended are newer
// than the position, and replace earlier records with the same key.
type memoryHead struct {
	Position
	Records *int `json:",omitempty"` // how many SaveMemory has written; nil in files of earlier versions
	Claims  []Entry
	Bad     []BadRecord
	Trail   []Event
}

// badText is the form of a BadRecord in a file.
type badText struct {
	Key      string
	Revision int64
	LeaseID  LeaseID
	Reason   string
}

// MarshalJSON implements json.Marshaler.
func (b BadRecord) MarshalJSON() ([]byte, error) {
	return json.Marshal(badText{b.Key, b.Revision, b.LeaseID, b.Err.Error()})
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *BadRecord) UnmarshalJSON(text []byte) error {
	var t badText
	err := json.Unmarshal(text, &t)
	*b = BadRecord{t.Key, t.Revision, t.LeaseID, errors.New(t.Reason)}
	return err
}

// SaveMemory writes the memory, one record a line. What would make the file larger than one that is read is left out,
// and the error says so.
func (s *StateDir) SaveMemory(m Memory) error {
	size, kept := 0, 0
	err := WriteFile(s.path+".peers", 0o600, func(w io.Writer) error {
		b := bufio.NewWriter(w)
		add := func(v any) error {
			line, err := json.Marshal(v)
			if size += len(line) + 1; err != nil || size > maxStateSize {
				return err
			}
			kept++
			_, _ = b.Write(line) // Flush tells
			return b.WriteByte('\n')
		}
		n := len(m.Records)
		err := add(memoryHead{m.Position, &n, m.Claims, m.Bad, m.Trail})
		for i := 0; i < len(m.Records) && err == nil && size <= maxStateSize; i++ {
			err = add(m.Records[i])
		}
		return errors.Join(err, b.Flush())
	})
	if left := len(m.Records) + 1 - kept; err == nil && left > 0 {
		err = fmt.Errorf("%d of %d peers not saved: the file would have more than %d bytes", left, len(m.Records),
			maxStateSize)
	}
	if err != nil {
		s.peersSize = 0
		return fmt.Errorf("save peers: %w", err)
	}
	s.peersSize = size
	return nil
}

// AddPeers appends the records of the peers that have come or changed to what SaveMemory has written. It does not wait
// for the disk: they survive the end of the daemon, but perhaps not a loss of power.
func (s *StateDir) AddPeers(before, after Peers) error {
	var text bytes.Buffer
	added, lines := map[*Entry]bool{}, json.NewEncoder(&text)
	for _, now := range Changes(before, after) {
		if !now.Valid() || now.stale || added[now.from] {
			continue
		}
		added[now.from] = true
		if err := lines.Encode(now.from); err != nil {
			return fmt.Errorf("append to the peers file: %w", err)
		}
	}
	if text.Len() == 0 {
		return nil
	}
	if s.peersSize == 0 || s.peersSize+text.Len() > maxStateSize {
		return fmt.Errorf("append to the peers file: %w", errNotAppendable)
	}
	s.peersSize += text.Len()
	f, err := os.OpenFile(s.path+".peers", os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err == nil {
		_, err = f.Write(text.Bytes())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.peersSize = 0 // half a record may be there, and what follows it would not be read
		return fmt.Errorf("append to the peers file: %w", err)
	}
	return nil
}

// errNotAppendable is the error of AddPeers until the next SaveMemory.
var errNotAppendable = errors.New("it was not completely written by this daemon, or has reached its maximum size")

// loadMemory returns what can be read, also with an error. Then it has no trail.
func (s *StateDir) loadMemory() (m Memory, err error) {
	text, err := ReadFile(s.path+".peers", maxStateSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Memory{}, nil
	}
	if err != nil {
		return Memory{}, fmt.Errorf("read peers: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var head memoryHead
	err = d.Decode(&head)
	m.Position = head.Position
	for err == nil {
		e := &Entry{}
		if err = d.Decode(e); err == nil {
			err = checkPrefixes(e.Prefixes())
		}
		if err == nil {
			m.Records = append(m.Records, e)
		}
	}
	saved := head.Records != nil && len(m.Records) >= *head.Records
	// Of the last record that was appended, the end may be missing.
	torn := saved && !bytes.Contains(bytes.TrimSpace(text[d.InputOffset():]), []byte("\n"))
	if !errors.Is(err, io.EOF) && !torn {
		return m, fmt.Errorf("read peers %s.peers: only the first %d were read: %w", s.path, len(m.Records), err)
	}
	if saved {
		m.Records = latest(m.Records, *head.Records)
	}
	if saved && head.whole() && allNamed(m.Records) {
		m.Claims, m.Bad, m.Trail = head.Claims, head.Bad, head.Trail
	}
	return m, nil
}

// latest returns the last record of each key and of each host, if some were appended to the first n.
func latest(records []*Entry, n int) []*Entry {
	if n == len(records) {
		return records
	}
	byKey, byHost := map[string]*Entry{}, map[string]*Entry{}
	for i, e := range records {
		byKey[e.Record.Key()] = e
		if i >= n && e.Identity != "" {
			byHost[hostOf(e)] = e
		}
	}
	return slices.DeleteFunc(records, func(e *Entry) bool {
		last := byHost[hostOf(e)]
		return byKey[e.Record.Key()] != e || last != nil && last != e
	})
}

// hostOf names the host of a record: another one with its identity has another address.
func hostOf(e *Entry) string { return fmt.Sprint(e.Identity, e.PublicIPs()) }

// allNamed reports whether all records of the store stand under their keys.
func allNamed(records []*Entry) bool {
	for _, e := range records {
		if e.Revision != 0 && (e.Claim || !e.named()) {
			return false
		}
	}
	return true
}

// whole reports whether what stands before the records is what SaveMemory writes.
func (h memoryHead) whole() bool {
	for i := range h.Claims {
		if !h.Claims[i].Claim || !h.Claims[i].named() {
			return false
		}
	}
	for _, ev := range h.Trail {
		if !ev.IsChange() || ev.Put != nil && !ev.Put.named() {
			return false
		}
	}
	return len(h.Trail) > 0 && h.Trail[0].Put != nil && h.Trail[0].Put.LeaseID != 0
}

// named reports whether an entry stands under the key of its subnets.
func (e *Entry) named() bool { return checkPrefixes(e.Prefixes()) == nil && e.Key == e.Record.Key() }
