// Package forwarding looks after the kernel settings without which the packets of pods are dropped: forwarding, and
// router advertisements where forwarding would end them.
package forwarding

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"flanneld/ip"
)

// period is how often the settings are looked at.
const period = 10 * time.Second

// Settings looks after the kernel settings that packets of pods depend on. It belongs to the goroutine of the loop.
type Settings struct {
	turnOn   bool // the flag -ip-forward
	networks []netip.Prefix
	log      *slog.Logger

	link   string // that was looked at
	looked time.Time
	said   string // last warning

	mu       sync.Mutex // guards all below
	problems []string
}

// New returns the settings for the ranges of a network; turnOn says whether forwarding may be turned on.
func New(turnOn bool, networks []netip.Prefix, log *slog.Logger) *Settings {
	return &Settings{turnOn: turnOn, networks: networks, log: log}
}

// Problems says which links drop packets of pods. Any goroutine may call it.
func (f *Settings) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}

// OnLinks looks at the links that IPv4 packets of pods arrive on: at the network's own devices, where forwarding is
// turned on, and at others, whose settings are the administrator's. The kernel gives a new device the setting
// net.ipv4.conf.default.forwarding.
func (f *Settings) OnLinks(own, others []string) {
	var problems []string
	if slices.ContainsFunc(f.networks, func(n netip.Prefix) bool { return n.Addr().Is4() }) {
		for _, link := range ip.NotForwarding(own) {
			if err := ip.TurnOnLinkForwarding(link); err != nil {
				problems = append(problems, fmt.Sprintf("%s; turning it on: %v", linkProblem(link), err))
				continue
			}
			f.log.Info("forwarding turned on", "settings", fmt.Sprintf("net/ipv4/conf/%s/forwarding = 1", link))
		}
		for _, link := range ip.NotForwarding(others) {
			problems = append(problems, linkProblem(link))
		}
	}
	before := f.Problems()
	for _, p := range problems {
		if !slices.Contains(before, p) {
			f.log.Warn("packets of pods are dropped", "reason", p)
		}
	}
	f.mu.Lock()
	f.problems = problems
	f.mu.Unlock()
}

func linkProblem(link string) string {
	return fmt.Sprintf("forwarding is off on %[1]s, so packets of containers that arrive there are dropped: sysctl -w "+
		"net/ipv4/conf/%[1]s/forwarding=1", link)
}

// Check looks at the settings from time to time, and at once when the underlay is another link.
func (f *Settings) Check(link string) {
	if link == f.link && time.Since(f.looked) < period {
		return
	}
	f.link, f.looked = link, time.Now()
	now, err := ip.ReadForwarding(link, f.networks)
	if err != nil {
		f.warnOnce("forwarding not checked", "reason", err)
		return
	}
	if now.TakesRA {
		f.keepRA(link)
	}
	if len(now.Off) == 0 {
		f.said = ""
		return
	}
	if !f.turnOn {
		return // the firewall says so, in the log and in the status
	}
	if err := ip.TurnOnForwarding(f.networks); err != nil {
		f.warnOnce("forwarding not turned on", "settings", strings.Join(now.Off, ", "), "reason", err)
		return
	}
	f.log.Info("forwarding turned on", "settings", strings.Join(now.Off, ", "))
}

// keepRA comes before forwarding is turned on, by us or by the container runtime: the default route would be gone.
func (f *Settings) keepRA(link string) {
	if err := ip.KeepRA(link); err != nil {
		f.log.Warn("with forwarding turned on this host ignores router advertisements and loses the routes and addresses "+
			"from them", "interface", link,
			"setting", "net.ipv6.conf."+link+".accept_ra = 2", "reason", err)
		return
	}
	f.log.Info("router advertisements are still accepted with forwarding turned on", "interface", link,
		"setting", "net.ipv6.conf."+link+".accept_ra = 2")
}

// warnOnce logs a warning when it differs from the last one.
func (f *Settings) warnOnce(text string, args ...any) {
	said := fmt.Sprintln(append(args, text)...)
	if said != f.said {
		f.said = said
		f.log.Warn(text, args...)
	}
}
