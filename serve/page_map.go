package serve

import (
	"fmt"
	"slices"
	"time"
)

// Sizes of the map, in its own units.
const (
	mapWidth  = 760
	boxWidth  = 180
	boxHeight = 48
	boxGap    = 12
)

// starMap has this host in the middle, and its peers in a column on either side.
type starMap struct {
	Width, Height     int
	BoxW, BoxH        int
	SelfX, SelfY      int // corner of this host's box
	SelfMidX, SelfMid int // its centre
	Peers             []mapPeer
}

// mapPeer is a peer's box, and the line that leads to it.
type mapPeer struct {
	tile
	X, Y         int // corner of the box
	FromX, FromY int
	ToX, ToY     int
	TextX, TextY int    // where the line's text is
	Text         string // round trip, or what is wrong in a word
}

func newStarMap(tiles []tile) *starMap {
	rows := max(1, (len(tiles)+1)/2)
	m := &starMap{Width: mapWidth, Height: rows*(boxHeight+boxGap) + boxGap, BoxW: boxWidth, BoxH: boxHeight}
	m.SelfX, m.SelfY = (mapWidth-boxWidth)/2, (m.Height-boxHeight)/2
	m.SelfMidX, m.SelfMid = mapWidth/2, m.Height/2
	for i, t := range tiles {
		right, row := i%2 == 1, i/2
		column := rows
		if right {
			column = len(tiles) / 2
		}
		top := (m.Height - column*(boxHeight+boxGap) + boxGap) / 2
		p := mapPeer{tile: t, X: 1, Y: top + row*(boxHeight+boxGap), FromX: m.SelfX, FromY: m.SelfMid, ToX: boxWidth,
			Text: lineText(t)}
		if right {
			p.X, p.FromX, p.ToX = mapWidth-boxWidth-1, m.SelfX+boxWidth, mapWidth-boxWidth
		}
		p.ToY = p.Y + boxHeight/2
		p.TextX, p.TextY = (p.ToX+p.FromX)/2, (p.ToY+p.FromY)/2+4
		m.Peers = append(m.Peers, p)
	}
	return m
}

func lineText(t tile) string {
	switch {
	case t.State == "bad" && !t.Programmed:
		return "not installed"
	case t.State == "bad":
		return "no answer"
	case t.Probe != nil && t.Probe.RoundTrip > 0:
		return milliseconds(t.Probe.RoundTrip)
	}
	return ""
}

// heatStep is one shade of the map of many peers.
type heatStep struct {
	Shade int
	Text  string
}

// shade gives each peer that is well the shade of its round trip, compared with the median, and returns the legend.
func shade(tiles []tile) []heatStep {
	var all []time.Duration
	for _, t := range tiles {
		if t.State == "ok" {
			all = append(all, t.Probe.RoundTrip)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	median := all[len(all)/2]
	limits := []time.Duration{median, 3 * median / 2, slowestShade * median}
	used := map[int]bool{}
	for i, t := range tiles {
		if t.State != "ok" {
			continue
		}
		n, _ := slices.BinarySearch(limits, t.Probe.RoundTrip)
		tiles[i].Shade = n + 1
		used[n+1] = true
	}
	var out []heatStep
	for n := range heatSteps {
		text := "slower"
		if n < len(limits) {
			text = fmt.Sprintf("up to %s", milliseconds(limits[n]))
		}
		if used[n+1] {
			out = append(out, heatStep{n + 1, text})
		}
	}
	return out
}
