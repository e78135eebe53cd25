"""Whatever yields pictures with people in them: images, folders, videos."""
