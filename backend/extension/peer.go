package extension

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"flanneld/subnet"
)

// peer is what the commands are told of another host. Values of one host are equal as long as nothing has changed.
type peer struct {
	subnet4, subnet6 netip.Prefix
	public4, public6 netip.Addr
	data             string // what its PreStartupCommand has printed
}

// peersOf returns the hosts that leases are of, by their first subnet.
func peersOf(peers subnet.Peers) map[netip.Prefix]peer {
	out := map[netip.Prefix]peer{}
	for l, r := range peers.Records() {
		first := l.Subnet
		if all := r.Prefixes(); len(all) > 0 {
			first = all[0]
		}
		p := out[first]
		if l.Subnet.Addr().Is4() {
			p.subnet4, p.public4 = l.Subnet, l.PublicIP
		} else {
			p.subnet6, p.public6 = l.Subnet, l.PublicIP
		}
		if text, err := parseData(l.BackendData); err == nil && p.data == "" {
			p.data = text // flannel writes it for IPv4 only
		}
		out[first] = p
	}
	return out
}

// vars are the variables of the commands, by the names that flannel gives them. Those of a family that the host does
// not have are empty.
func (p peer) vars() []string {
	return []string{
		"SUBNET=" + text(p.subnet4, p.subnet4.IsValid()), "PUBLIC_IP=" + text(p.public4, p.public4.IsValid()),
		"IPV6SUBNET=" + text(p.subnet6, p.subnet6.IsValid()), "PUBLIC_IPV6=" + text(p.public6, p.public6.IsValid()),
	}
}

func text(v interface{ String() string }, valid bool) string {
	if !valid {
		return ""
	}
	return v.String()
}

// parseData reads what a lease carries: a JSON string, or nothing.
func parseData(data string) (string, error) {
	if data == "" || data == "null" {
		return "", nil
	}
	var out string
	err := json.Unmarshal([]byte(data), &out)
	return out, err
}

// state is how far the commands for one peer are.
type state struct {
	done    peer // what the add command has succeeded for; the zero value: it has to be run
	former  peer // what it had succeeded for earlier, which may be gone: nobody has removed it since
	running bool
	failure error // of the last try
	fails   int   // tries in a row
	next    time.Time
}

const (
	firstWait = time.Second
	lastWait  = 30 * time.Second
)

// failed notes a try that has failed, and when the next one may be.
func (s *state) failed(err error, now time.Time) {
	s.failure, s.next = err, now.Add(min(lastWait, firstWait<<min(s.fails, 5)))
	s.fails++
}

// expire has the add command run again at once, for what it has made may be gone.
func (s *state) expire() {
	if s.done != (peer{}) {
		s.former, s.done = s.done, peer{}
	}
	s.fails, s.next = 0, time.Time{}
}

// words joins the words of a command for a message.
func words(command []string) string { return strings.Join(command, " ") }
