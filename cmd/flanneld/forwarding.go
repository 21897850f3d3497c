package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"flanneld/ip"
)

// forwardingPeriod is how often the settings are looked at.
const forwardingPeriod = 10 * time.Second

// forwarding looks after the kernel settings that packets of pods depend on. It belongs to the goroutine of the loop.
type forwarding struct {
	turnOn   bool // the flag -ip-forward
	networks []netip.Prefix
	log      *slog.Logger

	link   string // that was looked at
	looked time.Time
	said   string // last complaint
}

// check looks at the settings from time to time, and at once when the underlay is another link.
func (f *forwarding) check(link string) {
	if link == f.link && time.Since(f.looked) < forwardingPeriod {
		return
	}
	f.link, f.looked = link, time.Now()
	now, err := ip.ReadForwarding(link, f.networks)
	if err != nil {
		f.complain("forwarding not checked", "reason", err)
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
		f.complain("forwarding not turned on", "settings", strings.Join(now.Off, ", "), "reason", err)
		return
	}
	f.log.Info("forwarding turned on", "settings", strings.Join(now.Off, ", "))
}

// keepRA comes before forwarding is turned on, by us or by the container runtime: the default route would be gone.
func (f *forwarding) keepRA(link string) {
	if err := ip.KeepRA(link); err != nil {
		f.log.Warn("this host loses what router advertisements have given it when forwarding is turned on", "interface", link,
			"setting", "net.ipv6.conf."+link+".accept_ra = 2", "reason", err)
		return
	}
	f.log.Info("router advertisements stay in force when forwarding is turned on", "interface", link, "setting", "net.ipv6.conf."+link+".accept_ra = 2")
}

// complain says each thing once.
func (f *forwarding) complain(text string, args ...any) {
	said := fmt.Sprintln(append(args, text)...)
	if said != f.said {
		f.said = said
		f.log.Warn(text, args...)
	}
}
