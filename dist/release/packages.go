package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

const description = `

Leases a subnet for this host from etcd, keeps the kernel carrying packets to the subnets of all other hosts, and tells docker or the
CNI plugin about it. Speaks the protocol of flannel: hosts with either daemon are in one network.`

// writePackage makes one package in the format "deb" or "rpm".
func (r release) writePackage(s stage, p pkg, format string) (err error) {
	info := r.info(s, p, format)
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(r.out, packager.ConventionalFileName(info)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return packager.Package(info, f)
}

func (r release) info(s stage, p pkg, format string) *nfpm.Info {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: p.name, Arch: s.arch, Platform: "linux", Version: r.version.upgrade, VersionSchema: "none", Release: "1",
		Section: "net", Priority: "optional", Maintainer: "The flanneld authors <flanneld@localhost>",
		Description: p.summary + description, Vendor: "flanneld", License: "Apache-2.0", MTime: r.time, DisableGlobbing: true,
	})
	info.Umask = 0o022
	info.RPM.BuildHost, info.RPM.Summary, info.RPM.Compression = "localhost", p.summary, "gzip:6"
	info.Deb.Compression = "gzip"
	if r.key != nil {
		info.RPM.Signature.SignFn = r.signature
	}
	for _, name := range p.depends {
		info.Depends = append(info.Depends,
			fmt.Sprintf(map[string]string{"deb": "%s (= %s-1)", "rpm": "%s = %s-1"}[format], name, r.version.upgrade))
	}
	info.Recommends = p.recommends
	for _, i := range of(p.items, format) {
		c := &files.Content{Source: i.from, Destination: i.to, Type: files.TypeFile,
			FileInfo: &files.ContentFileInfo{Mode: i.mode, MTime: r.time, Owner: "root", Group: "root"}}
		switch {
		case i.config:
			c.Type = files.TypeConfigNoReplace
		case i.link:
			c.Type = files.TypeSymlink
		}
		info.Contents = append(info.Contents, c)
	}
	for name, script := range map[string]*string{
		"postinstall.sh": &info.Scripts.PostInstall, "preremove.sh": &info.Scripts.PreRemove,
		"postremove.sh": &info.Scripts.PostRemove,
	} {
		file := filepath.Join(s.root, p.scripts, name)
		if _, err := os.Stat(file); err == nil { // a package has those that it needs
			*script = file
		}
	}
	return info
}
