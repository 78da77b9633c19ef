"""Export: what an address names as one self-contained file: an EROFS or squashfs image, or a tar or zip
stream."""

from spraydry.actions.export.erofs import write_erofs
from spraydry.actions.export.squashfs import write_squashfs
from spraydry.actions.export.tar import write_tar
from spraydry.actions.export.target import Exported, new_file
from spraydry.actions.export.zip import write_zip

__all__ = ["Exported", "new_file", "write_erofs", "write_squashfs", "write_tar", "write_zip"]
