package main

import (
	"fmt"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// writeDocker makes the image of one architecture in the format of "docker save", which docker without the containerd
// image store loads.
func (r release) writeDocker(s stage) error {
	image, err := r.image(s)
	if err != nil {
		return err
	}
	tag, err := name.NewTag("localhost/" + imageName + ":" + r.version.tag())
	if err != nil {
		return err
	}
	file := fmt.Sprintf("flanneld-%s-docker-%s.tar", r.version.upgrade, s.arch)
	return tarball.WriteToFile(filepath.Join(r.out, file), tag, image)
}
