package serve

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flanneld/api"
)

const (
	mostRows     = 200 // of the table of peers; those with a problem come first
	mostFolded   = 20  // times of one folded message
	shownEvents  = 40  // the last ones
	mostReasons  = 10  // of a state, before they are folded
	mostInMap    = 16  // peers that are drawn as a map
	mostInTiles  = 60  // peers that are drawn as tiles with text; above, one cell each
	heatSteps    = 4   // shades of a round trip
	slowestShade = 4   // times the median: the shade of all that are slower
)

// tile is one peer on the page.
type tile struct {
	api.Peer
	State string // ok, bad, slow, unknown: the name of a style
	Word  string
	Shade int // of the round trip of a peer that is ok, 1 to heatSteps; 0: none
}

// folded is a message, however often it was logged.
type folded struct {
	Level, Message string
	Last           time.Time
	Times          []api.Event // the last ones, newest first
	Count          int
}

type pageData struct {
	api.Status
	Badge    string // of the state: the name of a style
	Still    bool   // not to be loaded again by itself
	Now      time.Time
	Query    string
	Tiles    []tile
	Rows     []tile
	Found    int  // peers that match the query
	Hidden   int  // rows that are not shown
	Counted  bool // the traffic of single peers is counted
	Counts   map[string]int
	Map      *starMap // nil: too many peers
	Heat     []heatStep
	Traffic  []DeviceTraffic
	Warnings []folded
	History  []api.Event
	Folded   []string // reasons beyond the first
}

func newPageData(from PageSources, query string) pageData {
	badges := map[string]string{api.StateReady: "ok", api.StateDegraded: "slow"}
	s := from.Status()
	d := pageData{
		Status: s, Badge: cmp.Or(badges[s.State], "bad"), Now: time.Now(), Query: query, Counts: map[string]int{},
		Traffic: from.Traffic(s.Devices), Warnings: fold(s.Errors),
	}
	if len(s.Reasons) > mostReasons {
		d.Reasons, d.Folded = s.Reasons[:mostReasons], s.Reasons[mostReasons:]
	}
	for _, p := range from.Peers() {
		t := tile{Peer: p}
		t.State, t.Word = judge(p, s.MTU)
		d.Counts[t.State]++
		d.Counted = d.Counted || p.Traffic != nil
		d.Tiles = append(d.Tiles, t)
	}
	switch {
	case len(d.Tiles) <= mostInMap:
		d.Map = newStarMap(d.Tiles)
	case len(d.Tiles) > mostInTiles:
		d.Heat = shade(d.Tiles)
	}
	d.chooseRows()
	d.History = from.Events()
	slices.Reverse(d.History)
	d.History = d.History[:min(len(d.History), shownEvents)]
	return d
}

// Small reports whether there is room for the names of all peers.
func (d pageData) Small() bool { return len(d.Tiles) <= mostInTiles }

// chooseRows takes the peers that match the query, those with a problem first.
func (d *pageData) chooseRows() {
	addr, _ := netip.ParseAddr(d.Query)
	for _, t := range d.Tiles {
		if d.Query == "" || t.matches(strings.ToLower(d.Query), addr) {
			d.Rows = append(d.Rows, t)
		}
	}
	d.Found = len(d.Rows)
	order := []string{"bad", "slow", "ok", "unknown"}
	slices.SortStableFunc(d.Rows, func(a, b tile) int {
		return slices.Index(order, a.State) - slices.Index(order, b.State)
	})
	if d.Hidden = max(0, len(d.Rows)-mostRows); d.Hidden > 0 {
		d.Rows = d.Rows[:mostRows]
	}
}

// matches reports whether a peer is meant by a text in lower case, or has the address of a host or pod.
func (t tile) matches(text string, addr netip.Addr) bool {
	if addr.IsValid() {
		return t.Subnet.Contains(addr) || t.PublicIP == addr
	}
	for _, s := range []string{t.Host, t.Subnet.String(), t.PublicIP.String(), t.Word} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	return false
}

// fold puts events with the same level and message together, the latest first.
func fold(events []api.Event) (out []folded) {
	for _, e := range slices.Backward(events) {
		i := slices.IndexFunc(out, func(f folded) bool { return f.Message == e.Message && f.Level == e.Level })
		if i < 0 {
			i = len(out)
			out = append(out, folded{Level: e.Level, Message: e.Message, Last: e.Time})
		}
		if out[i].Count++; len(out[i].Times) < mostFolded {
			out[i].Times = append(out[i].Times, e)
		}
	}
	return out
}

// judge names the state of a peer.
func judge(p api.Peer, mtu int) (state, word string) {
	q := p.Probe
	switch {
	case !p.Programmed:
		return "bad", strings.TrimSuffix("not installed: "+p.Reason, ": ")
	case p.Session != nil && p.Session.Silent:
		return "bad", "does not answer handshakes at " + p.Session.Endpoint.String()
	case q == nil:
		return "unknown", "not probed yet"
	case q.OneWay:
		return "bad", "one way: its probes arrive, ours get no answer"
	case q.Lost == q.Sent:
		return "bad", "no answer through the tunnel"
	case q.Refused > 0:
		return "unknown", "packets arrive, its daemon does not answer probes"
	case q.Lost > 0:
		return "slow", fmt.Sprintf("%d of %d probes lost", q.Lost, q.Sent)
	case q.PathMTU < mtu:
		return "slow", fmt.Sprintf("packets of more than %d bytes are lost", q.PathMTU)
	}
	return "ok", "ok"
}
