# SPDX-License-Identifier: Apache-2.0

"""What `make compare` does: this bundle's matching beside other registrations, on the same pairs, scored alike."""
