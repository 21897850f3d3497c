// Answer is a program for test pods: over TCP it tells a client the address that it sees it at, and it answers
// questions for the names that it is given, as the DNS of a cluster does.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

func main() {
	tcp := flag.String("tcp", ":8080", "`address` to tell clients theirs at; empty: none")
	dns := flag.String("dns", "", "`address` to answer DNS at; empty: none")
	names := flag.String("names", "", "comma-separated NAME=ADDRESS, names with a dot at their end")
	flag.Parse()
	failed := make(chan error)
	if *tcp != "" {
		go func() { failed <- serveTCP(*tcp) }()
	}
	if *dns != "" {
		known := map[string]netip.Addr{}
		for _, pair := range strings.Split(*names, ",") {
			name, addr, _ := strings.Cut(pair, "=")
			known[name] = netip.MustParseAddr(addr)
		}
		go func() { failed <- serveDNS(*dns, known) }()
	}
	log.Fatal(<-failed)
}

func serveTCP(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	name, _ := os.Hostname() // that of the pod
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_, _ = fmt.Fprintf(c, "%s asked %s\n", from, name)
		_ = c.Close()
	}
}

func serveDNS(address string, known map[string]netip.Addr) error {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		if text, err := answered(m, known); err == nil {
			_, _ = c.WriteTo(text, from)
		}
	}
}

// answered returns the answer to a question.
func answered(m dnsmessage.Message, known map[string]netip.Addr) ([]byte, error) {
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	q := m.Questions[0]
	addr, ok := known[q.Name.String()]
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}
	switch {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA && addr.Is4():
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}}}
	case q.Type == dnsmessage.TypeAAAA && addr.Is6():
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
	}
	return m.Pack()
}
