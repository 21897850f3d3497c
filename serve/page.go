package serve

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"flanneld/api"
)

//go:embed page.html
var pageText string

// mostRows bounds the table of peers; those with a problem come first.
const mostRows = 1000

// shownEvents are the last events on the page.
const shownEvents = 20

// tile is one peer on the page.
type tile struct {
	api.Peer
	State string // ok, bad, slow, unknown: the name of a style
	Word  string
}

type pageData struct {
	api.Status
	Badge   string // of the state: the name of a style
	Now     time.Time
	Tiles   []tile
	Rows    []tile
	Hidden  int // rows that are not shown
	Counts  map[string]int
	History []api.Event
}

// StatusPage serves the cluster as this host sees it, as one page without scripts and without outside resources. It changes
// nothing.
func StatusPage(status func() api.Status, peers func() []api.Peer, events func() []api.Event) http.Handler {
	page := template.Must(template.New("page").Funcs(template.FuncMap{
		"ago":  func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
		"left": func(t time.Time) string { return time.Until(t).Round(time.Second).String() },
		"list": func(v any) string { return strings.Trim(fmt.Sprint(v), "[]") },
		"ms":   func(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) },
	}).Parse(pageText))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if err := page.Execute(&b, newPageData(status(), peers(), events())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(b.Bytes()) // nothing to do for a client who has gone
	})
}

func newPageData(s api.Status, peers []api.Peer, events []api.Event) pageData {
	badges := map[string]string{api.StateReady: "ok", api.StateDegraded: "slow"}
	d := pageData{Status: s, Badge: cmp.Or(badges[s.State], "bad"), Now: time.Now(), Counts: map[string]int{}}
	for _, p := range peers {
		t := tile{Peer: p, State: "unknown", Word: "not probed yet"}
		t.State, t.Word = judge(p, s.MTU)
		d.Counts[t.State]++
		d.Tiles = append(d.Tiles, t)
	}
	d.Rows = slices.Clone(d.Tiles)
	order := []string{"bad", "slow", "ok", "unknown"}
	slices.SortStableFunc(d.Rows, func(a, b tile) int { return slices.Index(order, a.State) - slices.Index(order, b.State) })
	if d.Hidden = max(0, len(d.Rows)-mostRows); d.Hidden > 0 {
		d.Rows = d.Rows[:mostRows]
	}
	slices.Reverse(events)
	d.History = events[:min(len(events), shownEvents)]
	return d
}

// judge names the state of a peer.
func judge(p api.Peer, mtu int) (state, word string) {
	q := p.Probe
	switch {
	case !p.Programmed:
		return "bad", "not in the kernel: " + p.Reason
	case q == nil:
		return "unknown", "not probed yet"
	case q.OneWay:
		return "bad", "it reaches us, we do not reach it"
	case q.Lost == q.Sent:
		return "bad", "no answer through the tunnel"
	case q.Refused > 0:
		return "unknown", "packets arrive, no daemon answers probes"
	case q.Lost > 0:
		return "slow", fmt.Sprintf("%d of %d probes lost", q.Lost, q.Sent)
	case q.PathMTU < mtu:
		return "slow", fmt.Sprintf("packets above %d bytes are lost", q.PathMTU)
	}
	return "ok", "ok"
}
