# SPDX-License-Identifier: Apache-2.0

"""What part of the method does the work? Arms that are pre-trained and measured alike."""
